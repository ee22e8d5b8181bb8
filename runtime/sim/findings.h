/* findings.h - the end of the process. */
#ifndef MDL_SIM_FINDINGS_H
#define MDL_SIM_FINDINGS_H

_Noreturn void findings_exit(void); /* with SIM_EXIT, at once */
/* At the process's end: looks for leaks; ends with SIM_EXIT when anything was ever found. */
void findings_end(void);

#endif
