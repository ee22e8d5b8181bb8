/* two_stages_main.c - the model of two stages as a trainer; `clip` as the first word makes it
 * clip gradients.
 */
#include <string.h>

#include "two_stages.h"

int main(int argc, char **argv)
{
    MdlModel m = two_stages();
    if (argc > 1 && strcmp(argv[1], "clip") == 0) {
        m.hyper.beta1 = 1; /* the model's sign to clip */
        m.clip_norm = 0.05;
        argc--;
        argv++;
    }
    return mdl_main(&m, argc, argv);
}
