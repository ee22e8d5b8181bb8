/* search_text.c - the result of a search as a table with bars, for people. */
#include "plan.h"
#include "search.h"

enum { SHOWN = 8, BAR = 24 };

static void bar(Text *out, double share)
{
    const int full = (int)(share * BAR + 0.5);
    for (int i = 0; i < BAR; i++)
        text_add(out, i < full ? "#" : ".");
}

void search_text(const SearchResult *r, const Model *m, Text *out)
{
    Arena *a = out->arena;
    text_printf(out,
                "%d settings tried, %d made into plans; the best:\n\n"
                "  %-12s %7s %6s %11s %9s %10s %12s %10s %8s\n",
                r->tried, r->planned, "schedule", "devices", "chunks", "micro-batch", "recompute",
                "step", "samples/s", "memory", "bubble");
    for (int i = 0; i < r->rows.n && i < SHOWN; i++) {
        const SearchRow *x = &r->rows.at[i];
        text_printf(out, "%c %-12s %7d %6d %11lld %9s %10s %12s %10s %6.1f %%  ",
                    i == 0 ? '*' : ' ', schedule_kind_name(x->schedule), x->devices, x->most_chunks,
                    (long long)x->microbatch, recompute_kind_name(x->recompute),
                    plan_show_seconds(a, x->seconds),
                    arena_printf(a, "%.4g", (double)m->settings.train.batch / x->seconds),
                    show_bytes(a, (int64_t)x->bytes), 100 * x->bubble);
        bar(out, r->rows.at[0].seconds / x->seconds);
        text_add(out, "\n");
    }
    text_add(out,
             "\nmemory is that of the device that needs most; a bar is as long as many samples go "
             "through in the\nsame time\n\n");
}
