/* test_bars.c - moments and windows as text, and bars of a longer timeframe made of shorter ones.
 */
#include <math.h>

#include "pipelines/prepare/bars_data.h"
#include "pipelines/prepare/timeframe.h"
#include "tests/test.h"

static struct err e;

TEST(bars_moments_that_can_be_read_in_one_way)
{
    static const struct {
        const char *date, *clock;
        int64_t seconds;
    } good[] = {
        {"2022-08-15", NULL, 1660521600},
        {"2022-08-15 10:06", NULL, 1660557960},
        {"2022-08-15T10:06:30", NULL, 1660557990},
        {"2022.08.15 10:06:30.000", NULL, 1660557990},
        {"2022/08/15  10:06", NULL, 1660557960},
        {"20220815 100630", NULL, 1660557990},
        {"20220815100630", NULL, 1660557990},
        {"202208151006", NULL, 1660557960},
        {"20220815", "10:06", 1660557960},
        {"2022.08.15", "1006", 1660557960},
        {"2022-08-15 10:06Z", NULL, 1660557960},
        {"2022-08-15 10:06:00 UTC", NULL, 1660557960},
        {"2022-08-15 12:06:00 GMT+0200", NULL, 1660557960},
        {"2022-08-15T04:36:00-05:30", NULL, 1660557960},
        {"1660557960", NULL, 1660557960},
        {"1660557960000", NULL, 1660557960},
        {"2020-02-29", NULL, 1582934400},
        {"1969-12-31 23:59", NULL, -60},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t seconds = 0;
        if (moment_read(good[i].date, good[i].clock, &seconds) < 0 || seconds != good[i].seconds)
            test_fail(__FILE__, __LINE__, "\"%s\" became %lld", good[i].date, (long long)seconds);
    }
}

TEST(bars_moments_in_doubt_are_refused)
{
    static const char *const bad[] = {
        "",
        "15/08/2022",
        "08.15.2022",
        "15-08-2022",
        "2022-8-15",
        "2022-08.15",
        "2022-13-01",
        "2021-02-29",
        "2022-08-15 24:00",
        "2022-08-15 10",
        "2022-08-15 10:60",
        "2022-08-15 10:06:61",
        "2022-08-15 10:06 PM",
        "2022-08-15 10:06:00.5",
        "2022-08-15 10:06 CET",
        "2022-08-15 10:06+25:00",
        "2022-08-1510:06",
        "2022081510",
        "166055796",
        "1660557960001",
        "16605579600",
        "now",
        "2022-08-15 -1:06",
        "2022-08-15 10:06+02:00x",
    };
    int64_t seconds;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (moment_read(bad[i], NULL, &seconds) == 0)
            test_fail(__FILE__, __LINE__, "\"%s\" became %lld", bad[i], (long long)seconds);
    CHECK_EQ(moment_read("2022-08-15 10:06", "10:06", &seconds), -1);
    CHECK_EQ(moment_read("2022-08-15", "10", &seconds), -1);
    CHECK_EQ(moment_read("1660557960", "10:06", &seconds), -1);
}

TEST(bars_windows_are_parsed_and_limited)
{
    struct window w[TIMEFRAMES_MAX];
    uint32_t count;
    CHECK_OK(windows_parse(" H4:48  M1:65536 ", w, &count, &e), e);
    CHECK(count == 2 && w[0].frame->seconds == 14400 && w[0].bars == 48 && w[1].bars == 65536);
    CHECK_OK(windows_parse("M1:1 M2:1 M3:1 M4:1 M5:1 M6:1", w, &count, &e), e);
    CHECK_EQ(count, TIMEFRAMES_MAX);
    static const char *const bad[] = {"",         " ",    "M1",    "M1:",   "M1:x",
                                      "M1:1x",    "M1:0", "M1:-1", "M7:1",  "m1:1",
                                      "H1:65537", "W1:3", ":3",    "M1 :3", "M1:1,H1:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (windows_parse(bad[i], w, &count, &e) == 0)
            test_fail(__FILE__, __LINE__, "\"%s\" was accepted", bad[i]);
    CHECK_EQ(windows_parse("M1:1 M1:2", w, &count, &e), -1);
    CHECK_HAS(e.text, "has M1 twice");
}

/* Bars of M5 from three of M1 at the minutes 3, 4 and 6; the value tells what a bar holds. */
TEST(bars_longer_ones_are_complete_when_time_says_so)
{
    struct series s = {
        .window = {timeframe_named("M5"), 1}, .features = BAR_FEATURES_MAX, .end = INT64_MIN};
    const struct bar bars[] = {
        {180, 10, 12, 9, 11, 5}, {240, 11, 15, 10, 14, 6}, /* the second ends the interval */
        {360, 14, 14, 7, 8, 1},  {420, 8, 9, 8, 9, 2},     /* a bar of the next interval ends it */
        {660, 9, 20, 9, 20, 3},  {720, 20, 20, 1, 2, 4},   /* a cut ends it */
        {780, 3, 6, 3, 6, 0},
    };
    for (uint32_t i = 0; i < 7; i++)
        CHECK_OK(series_take(&s, &bars[i], i, 60, i == 0 || i == 6, &e), e);
    CHECK_EQ(s.count, 3); /* the one that was begun is none yet */
    static const uint32_t first[] = {0, 2, 4}, known[] = {1, 4, 6};
    static const double wanted[3][5] = {
        {10. / 10, 15. / 10, 9. / 10, 14. / 10, 11},
        {14. / 14, 14. / 14, 7. / 14, 9. / 14, 3},
        {9. / 9, 20. / 9, 1. / 9, 2. / 9, 7},
    };
    for (int k = 0; k < 3; k++) {
        CHECK_EQ(s.first[k], first[k]);
        CHECK_EQ(s.known[k], known[k]);
        for (int f = 0; f < 5; f++) {
            double value = f < 4 ? log(wanted[k][f]) : log1p(wanted[k][f]);
            CHECK(fabs((double)s.value[5 * k + f] - value) < 1e-6);
        }
    }
    CHECK(s.begun == 6 && s.previous <= 0); /* behind the cut nothing is known of before */
    series_free(&s);
}
