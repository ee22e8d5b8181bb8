/* csv.c - the compute schedule in the form of torch.distributed.pipelining: a line for every
 * device, its runs in order, each with stage (chunk), phase and micro-batch.
 *
 *     0F0,0F1,0B0,0F2,0B1,0B2
 *     1F0,1B0,1F1,1B1,1F2,1B2
 */
#include "plan.h"

void plan_csv(const Program *p, Text *out)
{
    for (int d = 0; d < p->devices.n; d++) {
        const ActionList *list = &p->devices.at[d].train;
        bool first = true;
        for (int i = 0; i < list->actions.n; i++) {
            const Action *a = &list->actions.at[i];
            if (a->kind != ACT_RUN)
                continue;
            text_printf(out, "%s%d%s%d", first ? "" : ",", a->chunk, run_name(a->run), a->m);
            first = false;
        }
        text_add(out, "\n");
    }
}
