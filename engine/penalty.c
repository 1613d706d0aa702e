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
static void term_add(const struct stepper *s, const struct ewc_term *term, uint32_t tensor,
                     uint64_t from, uint64_t count, float *g, double *penalty)
{
    uint64_t first = s->model->tensors[tensor].first + from;
    const float *theta = s->parameters + first;
    const float *theta_star =
        term->theta_star ? term->theta_star + first : term->theta_stars[tensor] + from;
    struct importance_view f = {.exact = term->fisher};
    if (!term->fisher)
        f = importance_view(term->importance, tensor);
    if (f.exact)
        op_ewc_add(s->backend, theta, theta_star, f.exact + (term->fisher ? first : from),
                   term->damping, term->lambda, g, count, penalty);
    else if (f.values)
        op_ewc_half_add(s->backend, theta, theta_star, f.values + from, term->damping, term->lambda,
                        g, count, penalty);
    else
        op_ewc_coded_add(s->backend, theta, theta_star, f.coded, from, term->damping, term->lambda,
                         g, count, penalty);
}

void penalty_add(const struct stepper *s, uint64_t first, uint64_t count, float *g, double *penalty)
{
    if (!s->batch.term_count)
        return;
    uint32_t tensor = tensor_of(s->model, first);
    for (uint64_t done = 0, piece; done < count; done += piece) {
        const struct tensor_info *t = &s->model->tensors[tensor];
        uint64_t from = first + done - t->first, left = t->count - from;
        piece = count - done < left ? count - done : left;
        piece = s->device->apart || piece < PIECE ? piece : PIECE;
        for (int i = 0; i < s->batch.term_count; i++)
            term_add(s, s->device->apart ? &s->sent[i].to : &s->batch.terms[i], tensor, from, piece,
                     g + done, penalty);
        tensor += piece == left;
    }
}
