/* cublaslt_unknown.c - the functions of the real library that are not simulated: each reports its
 * own name. The list is that of all functions; those that exist replace these, which are weak.
 */
int sim_blas_unknown(const char *call, void *caller);

#define UNKNOWN(name)                                                                              \
    __attribute__((weak)) int name(void);                                                          \
    __attribute__((weak)) int name(void)                                                           \
    {                                                                                              \
        return sim_blas_unknown(#name, __builtin_return_address(0));                               \
    }
#include "cublaslt_exports.def"
