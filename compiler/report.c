/* report.c - mdlc plan: gathers the plan once and writes the views that were asked for.
 *
 * The text for people goes to standard output unless one of the files does. */
#include <string.h>

#include "compare.h"
#include "driver.h"
#include "plan.h"

static bool is_stdout(const char *path)
{
    return path && strcmp(path, "-") == 0;
}

static bool write_view(const Options *o, const char *path, const Text *text)
{
    if (!is_stdout(path)) {
        if (!build_replace_file(path, text->at))
            return false;
        if (!o->quiet)
            fprintf(stderr, "wrote %s\n", path);
        return true;
    }
    if (fwrite(text->at, 1, text->n, stdout) == text->n && fflush(stdout) == 0)
        return true;
    fprintf(stderr, "mdlc: cannot write to standard output\n");
    return false;
}

int report_plan(const Options *o, const Compilation *c)
{
    enum { VIEWS = 5 };
    const char *paths[VIEWS] = {o->json, o->svg, o->dot, o->csv, o->trace};
    Plan *plan = plan_make(c->arena, c->program);
    if (!plan->seconds->complete) {
        fprintf(stderr, "mdlc: the schedule does not come to its end in time\n");
        return EXIT_BUG;
    }
    int64_t step = 0;
    if (o->compare) {
        bool unreadable;
        plan->measured = compare_read(c->arena, c->program, o->compare, &step, &unreadable);
        if (!plan->measured)
            return unreadable ? EXIT_USE : EXIT_MODEL;
    }
    bool ok = true, to_stdout = false;
    for (int i = 0; i < VIEWS; i++) {
        if (!paths[i])
            continue;
        Text text = {.arena = c->arena};
        text_add(&text, "");
        if (i == 0 && !plan_json(plan, &text)) {
            fprintf(stderr, "mdlc: no memory for the plan as JSON\n");
            return EXIT_USE;
        }
        if (i == 1)
            plan_svg(plan, &text);
        else if (i == 2)
            plan_dot(plan, &text);
        else if (i == 3)
            plan_csv(c->program, &text);
        else if (i == 4)
            plan_trace(plan, &text);
        to_stdout = to_stdout || is_stdout(paths[i]);
        ok = write_view(o, paths[i], &text) && ok;
    }
    if (c->applied)
        ok = write_view(o, o->apply,
                        &(Text){.at = (char *)(uintptr_t)c->applied, .n = strlen(c->applied)}) &&
             ok;
    if (!to_stdout && !o->quiet) {
        Text text = {.arena = c->arena};
        text_add(&text, "");
        if (o->search)
            search_text(&c->search, c->model, &text);
        plan_text(plan, &text);
        if (plan->measured)
            compare_text(plan, plan->measured, step, &text);
        ok = write_view(o, "-", &text) && ok;
    }
    return ok ? EXIT_DONE : EXIT_USE;
}
