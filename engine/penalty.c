/* penalty.c - see penalty.h. Each element's arithmetic is op_ewc_add's. */
#include "engine/penalty.h"

/* Parameters of a piece: weights, theta*, Fisher information and gradient take 16 KiB. */
enum { PIECE = 1024 };

/* The tensor that parameter `at` of the flat vector is in. */
static uint32_t tensor_of(const struct model *m, uint64_t at)
{
    uint32_t low = 0, high = m->tensor_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (m->tensors[middle].first <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* One term's gradient at a piece that begins `from` parameters into tensor `tensor`. */
static double term_add(const struct stepper *s, const struct ewc_term *term, uint32_t tensor,
                       uint64_t from, uint64_t count, float *g)
{
    uint64_t first = s->model->tensors[tensor].first + from;
    const float *theta_star =
        term->theta_star ? term->theta_star + first : term->theta_stars[tensor] + from;
    float expanded[PIECE];
    double penalty;
    const float *fisher = term->fisher ? term->fisher + first : expanded;
    if (!term->fisher)
        importance_expand(term->importance, s->backend, tensor, from, count, expanded);
    op_ewc_add(s->backend, s->parameters + first, theta_star, fisher, term->damping, term->lambda,
               g, count, &penalty);
    return penalty;
}

double penalty_add(const struct stepper *s, uint64_t first, uint64_t count, float *g)
{
    double penalty = 0;
    if (!s->batch.term_count)
        return 0;
    uint32_t tensor = tensor_of(s->model, first);
    for (uint64_t done = 0, piece; done < count; done += piece) {
        const struct tensor_info *t = &s->model->tensors[tensor];
        uint64_t from = first + done - t->first, left = t->count - from;
        piece = count - done < PIECE ? count - done : PIECE;
        piece = left < piece ? left : piece;
        for (int i = 0; i < s->batch.term_count; i++)
            penalty += term_add(s, &s->batch.terms[i], tensor, from, piece, g + done);
        tensor += piece == left;
    }
    return penalty;
}
