/* test_gpu.c - monitord: how the GPU does, by a management library that the tests make
 * (tests/fake_nvml.c), and what becomes of it where there is none, or it fails. */
#include "monitord/gpu.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/journal.h"
#include "tests/test.h"

static const char bus[] = "ffff:00:00.0"; /* of the emulated GPU */
static struct gpu gpu;

/* The library is in ../lib of this program; `words`: what it is to do (fake_nvml.c). */
static void fake_take(const char *words)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    CHECK(length > 0);
    path[length] = 0;
    for (int up = 0; up < 2; up++)
        *strrchr(path, '/') = 0;
    strcat(path, "/lib/libnvidia-ml-fake.so");
    setenv("FINETUNED_NVML_LIBRARY", path, 1);
    setenv("FINETUNED_FAKE_NVML", words, 1);
}

static void device_told(const char *kind, const char *where, uint64_t incarnation)
{
    union msg m = {.event_device = {.head = {.incarnation = incarnation}}};
    MSG_STR(m.event_device.kind, kind);
    MSG_STR(m.event_device.bus, where);
    gpu_message(&gpu, MSG_event_device, &m);
}

TEST(nvml_tells_how_a_gpu_does)
{
    struct nvml n;
    struct msg_gpu_sample m;
    struct err e;
    fake_take("");
    CHECK_OK(nvml_open(&n, bus, &e), e);
    CHECK_OK(nvml_read(&n, &m, &e), e);
    CHECK(m.utilisation == 0.5 && m.memory_utilisation == 0.2);
    CHECK_EQ(m.used_bytes, 324 << 20);
    CHECK_EQ(m.total_bytes, 1 << 30);
    CHECK(m.temperature_c == 61 && fabs(m.power_w - 345.6) < 1e-9 && m.power_limit_w == 700);
    CHECK(m.clock_mhz == 1980 && m.memory_clock_mhz == 2619);
    setenv("FINETUNED_FAKE_NVML", "power", 1);
    CHECK_OK(nvml_read(&n, &m, &e), e);
    CHECK(isnan(m.power_w) && isnan(m.power_limit_w) && m.utilisation == 0.9);
    setenv("FINETUNED_FAKE_NVML", "read", 1);
    CHECK(nvml_read(&n, &m, &e) < 0);
    CHECK_STR(e.text, "the GPU does not tell how it does: GPU is lost");
    nvml_close(&n);
    nvml_close(&n);
    CHECK(!n.library);
}

TEST(nvml_says_why_it_cannot)
{
    static const struct {
        const char *words, *where, *says;
    } cases[] = {
        {"init", bus, "the driver does not answer: GPU is lost"},
        {"find", bus, "the driver finds no GPU at ffff:00:00.0: Not Found"},
        {"", "ffff:01:00.0", "the driver finds no GPU at ffff:01:00.0: Not Found"},
        {"mig", bus, "the GPU at ffff:00:00.0 is divided (MIG), and the driver tells nothing"},
    };
    struct nvml n;
    struct err e;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_take(cases[i].words);
        CHECK(nvml_open(&n, cases[i].where, &e) < 0);
        CHECK_HAS(e.text, cases[i].says);
        CHECK(!n.library);
    }
    setenv("FINETUNED_NVML_LIBRARY", "./none.so", 1);
    CHECK(nvml_open(&n, bus, &e) < 0);
    CHECK_HAS(e.text, "there is no management library of NVIDIA's driver: ./none.so: cannot open");
    setenv("FINETUNED_NVML_LIBRARY", "libm.so.6", 1); /* knows none of the functions */
    CHECK(nvml_open(&n, bus, &e) < 0);
    CHECK_HAS(e.text, "is too old");
}

TEST(gpu_is_looked_at_once_a_second)
{
    fake_take("");
    gpu_open(&gpu);
    CHECK(!gpu_look(&gpu, 1, 100)); /* nobody has told of one */
    device_told("cpu", "", 1);
    CHECK(!gpu_look(&gpu, 1, 100) && !gpu.nvml.library);
    device_told("cuda", bus, 2);
    CHECK(!gpu_look(&gpu, 0, 100)); /* trainerd is away */
    CHECK(gpu_look(&gpu, 1, 100) && gpu.there && gpu.sample.utilisation == 0.5);
    CHECK_STR(gpu.sample.bus, bus);
    CHECK(!gpu_look(&gpu, 1, 100.9) && gpu.there);
    CHECK(gpu_look(&gpu, 1, 101.5) && gpu.sample.utilisation == 0.9);
    CHECK(!gpu_look(&gpu, 0, 103) && !gpu.there);
    device_told("cuda", bus, 3); /* it was started again: the library stays open */
    CHECK(gpu_look(&gpu, 1, 103) && gpu.sample.utilisation == 0.5);
    device_told("cpu", "", 4);
    CHECK(!gpu.there && !gpu.nvml.library);
    gpu_close(&gpu);
}

/* A driver that is busy is not asked for more than 1 % of the time. */
TEST(gpu_that_answers_slowly_is_looked_at_less_often)
{
    fake_take("slow");
    gpu_open(&gpu);
    device_told("cuda", bus, 1);
    CHECK(gpu_look(&gpu, 1, 100));
    CHECK(!gpu_look(&gpu, 1, 102.4) && gpu.there);
    CHECK(gpu_look(&gpu, 1, 5000));
    gpu_close(&gpu);
}

TEST(gpu_that_fails_is_asked_again_later)
{
    fake_take("read");
    gpu_open(&gpu);
    device_told("cuda", bus, 1);
    CHECK(!gpu_look(&gpu, 1, 100) && !gpu.there && !gpu.nvml.library);
    CHECK_HAS(gpu.told.text, "GPU is lost");
    setenv("FINETUNED_FAKE_NVML", "", 1);
    CHECK(!gpu_look(&gpu, 1, 159));
    CHECK(gpu_look(&gpu, 1, 160));
    setenv("FINETUNED_FAKE_NVML", "read", 1);
    CHECK(!gpu_look(&gpu, 1, 161) && !gpu.there);
    setenv("FINETUNED_FAKE_NVML", "", 1);
    device_told("cuda", bus, 2); /* by a trainerd that found it in order */
    CHECK(gpu_look(&gpu, 1, 162));
    gpu_close(&gpu);
}

/* A monitord that was started later finds what trainerd told in its journal: not what another start
 * of it did. */
TEST(gpu_is_found_in_the_journal)
{
    struct journal j;
    struct err e;
    struct msg_event_device m = {.head = {.incarnation = 7, .seq = 1}, .kind = "cuda"};
    union msg step = {.trainer_step = {.head = {.incarnation = 7}}};
    MSG_STR(m.bus, bus);
    CHECK(mkdir("journals", 0700) == 0);
    CHECK_OK(journal_open(&j, "trainerd", &e), e);
    CHECK_OK(journal_append(&j, MSG_event_device, &m, &e), e);
    m.head.incarnation = 6;
    MSG_STR(m.kind, "cpu");
    CHECK_OK(journal_append(&j, MSG_event_device, &m, &e), e);
    journal_close(&j);
    gpu_open(&gpu);
    gpu_message(&gpu, MSG_trainer_step, &step);
    CHECK_STR(gpu.bus, bus);
}

static int line(uint64_t step, double now_s, char text[GPU_LINE_BYTES])
{
    struct msg_trainer_step m = {.step = step,
                                 .device_bytes = 100 << 20,
                                 .device_peak_bytes = 120 << 20,
                                 .device_free_bytes = 700 << 20};
    return gpu_line(&gpu, &m, 100, now_s, text);
}

TEST(gpu_line_comes_every_so_many_steps_and_once_a_second)
{
    char text[GPU_LINE_BYTES];
    struct msg_trainer_step on_cpu = {.step = 1000};
    gpu_open(&gpu);
    CHECK(!gpu_line(&gpu, &on_cpu, 100, 1, text));
    CHECK(!line(99, 1, text));
    CHECK(line(103, 1, text)); /* not each step is told */
    CHECK_STR(text, "step=103 device_mib=100.0 device_peak_mib=120.0 device_free_mib=700.0 The GPU "
                    "at this step; device_mib is what trainerd has of its memory.");
    CHECK(!line(150, 5, text));
    CHECK(line(200, 5, text));
    CHECK(!line(300, 5.5, text));
    fake_take("power");
    device_told("cuda", bus, 1);
    CHECK(gpu_look(&gpu, 1, 6));
    CHECK(line(301, 6, text)); /* late, not left out */
    CHECK_HAS(text, "device_free_mib=700.0 utilisation=0.50 used_mib=324.0 temperature_c=61 "
                    "clock_mhz=1980 The GPU at");
    CHECK(!line(90, 10, text)); /* it went back */
    CHECK(line(100, 11, text));
    struct msg_trainer_step m = {.step = 1000, .device_bytes = 1};
    CHECK(!gpu_line(&gpu, &m, 0, 100, text));
    gpu_close(&gpu);
}

TEST(gpu_figures_count_where_they_are_known)
{
    static struct highwater_page page;
    struct msg_gpu_sample m = {
        .utilisation = 0.5, .used_bytes = 100, .temperature_c = 60, .power_w = NAN};
    gpu_count(&page, &m);
    m.utilisation = 0;
    m.used_bytes = 0;
    m.temperature_c = NAN;
    gpu_count(&page, &m);
    CHECK_EQ(page.gpu_utilisation.count, 2);
    CHECK(page.gpu_utilisation.sum == 0.5 && page.gpu_utilisation.most == 0.5);
    CHECK(page.gpu_used_bytes.count == 1 && page.gpu_used_bytes.most == 100);
    CHECK(page.gpu_temperature_c.count == 1 && page.gpu_power_w.count == 0);
}
