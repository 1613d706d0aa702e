/* test_blocks.c - every parameter is in exactly one block, and blocks end where they should. */
#include "fisherd/blocks.h"

#include "tests/test.h"

static struct tensor_info tensors[200];

/* A model of tensors only: "layer.weight" [rows, columns] and "layer.bias" [rows] for each pair. */
static struct model model_make(const uint64_t (*shapes)[2], uint32_t layers)
{
    struct model m = {.tensors = tensors};
    for (uint32_t i = 0; i < layers; i++)
        for (int bias = 0; bias < 2; bias++) {
            struct tensor_info *t = &tensors[m.tensor_count++];
            *t = (struct tensor_info){.rank = bias ? 1 : 2,
                                      .first = m.parameter_count,
                                      .dims = {shapes[i][0], bias ? 0 : shapes[i][1]},
                                      .count = shapes[i][0] * (bias ? 1 : shapes[i][1])};
            snprintf(t->name, sizeof t->name, "%u.%s", 2 * i, bias ? "bias" : "weight");
            m.parameter_count += t->count;
        }
    return m;
}

/* "first+count:names|..." of all blocks; checks that they follow each other. */
static const char *blocks_text(const struct model *m, uint64_t block_size)
{
    static char text[8192];
    struct fisherfile_block b;
    uint64_t next = 0, count = blocks_count(m, block_size);
    size_t used = 0;
    text[0] = 0;
    for (uint64_t i = 0; i < count; i++) {
        blocks_at(m, block_size, i, &b);
        CHECK_EQ(b.first, next);
        CHECK(b.count > 0 && b.count <= block_size);
        next += b.count;
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%s%llu+%llu:%s", i ? "|" : "",
                             (unsigned long long)b.first, (unsigned long long)b.count, b.tensors);
        CHECK(used < sizeof text);
    }
    CHECK_EQ(next, m->parameter_count);
    return text;
}

TEST(blocks_of_the_default_model_are_one)
{
    const uint64_t shapes[3][2] = {{256, 784}, {256, 256}, {10, 256}};
    struct model m = model_make(shapes, 3);
    CHECK_STR(blocks_text(&m, 1000000), "0+269322:0.weight 0.bias 2.weight 2.bias 4.weight 4.bias");
}

TEST(blocks_do_not_divide_a_layer_that_fits)
{
    const uint64_t shapes[3][2] = {{4, 10}, {4, 10}, {2, 4}};
    struct model m = model_make(shapes, 3); /* layers of 44, 44 and 10 */
    CHECK_STR(blocks_text(&m, 98), "0+98:0.weight 0.bias 2.weight 2.bias 4.weight 4.bias");
    CHECK_STR(blocks_text(&m, 97), "0+88:0.weight 0.bias 2.weight 2.bias|88+10:4.weight 4.bias");
    CHECK_STR(blocks_text(&m, 85), "0+44:0.weight 0.bias|44+54:2.weight 2.bias 4.weight 4.bias");
    CHECK_STR(blocks_text(&m, 44),
              "0+44:0.weight 0.bias|44+44:2.weight 2.bias|88+10:4.weight 4.bias");
}

TEST(blocks_cut_a_large_tensor_after_whole_rows)
{
    const uint64_t shapes[2][2] = {{5, 10}, {2, 5}};
    struct model m = model_make(shapes, 2); /* 50 + 5, 10 + 2 */
    CHECK_STR(blocks_text(&m, 25),
              "0+20:0.weight|20+20:0.weight|40+15:0.weight 0.bias|55+12:2.weight 2.bias");
    CHECK_STR(blocks_text(&m, 50), "0+50:0.weight|50+17:0.bias 2.weight 2.bias");
}

TEST(blocks_cut_a_row_that_is_larger_than_a_block)
{
    const uint64_t shapes[1][2] = {{2, 10}};
    struct model m = model_make(shapes, 1);
    CHECK_STR(blocks_text(&m, 7), "0+7:0.weight|7+3:0.weight|10+7:0.weight|17+5:0.weight 0.bias");
    CHECK_EQ(blocks_count(&m, 1), 22);
}

TEST(blocks_end_where_the_names_no_longer_fit)
{
    uint64_t shapes[100][2];
    struct fisherfile_block b;
    for (int i = 0; i < 100; i++)
        shapes[i][0] = shapes[i][1] = 1;
    struct model m = model_make((const uint64_t(*)[2])shapes, 100);
    uint64_t next = 0, count = blocks_count(&m, 1000000);
    CHECK_EQ(count, 2); /* 200 names of about ten bytes, 1,023 a block at most */
    for (uint64_t i = 0; i < count; i++) {
        blocks_at(&m, 1000000, i, &b);
        CHECK_EQ(b.first, next);
        CHECK(strlen(b.tensors) < sizeof b.tensors);
        next += b.count;
    }
    CHECK_EQ(next, 200);
}

TEST(blocks_of_random_models_cover_everything_once)
{
    uint64_t shapes[20][2];
    for (int round = 0; round < 200; round++) {
        uint32_t layers = 1 + (uint32_t)(test_random() % 8);
        for (uint32_t i = 0; i < layers; i++) {
            shapes[i][0] = 1 + test_random() % 12;
            shapes[i][1] = 1 + test_random() % 12;
        }
        struct model m = model_make((const uint64_t(*)[2])shapes, layers);
        blocks_text(&m, 4 + test_random() % 200);
    }
}
