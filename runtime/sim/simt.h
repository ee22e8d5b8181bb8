/* simt.h - what a translated kernel sees: one thread of a grid.
 *
 * translate_*.c writes, for a kernel, a C function that is run once per thread. It keeps PTX
 * registers in local variables and reaches everything else through a SimThread. This header and
 * simt_*.h stand before the translated text, which is the only file that is compiled and exports
 * one symbol, `sim_code`. All else that is known of the kernel is in a SimKernelTable.
 *
 *     kernel_HASH.c:  static void kernel(SimThread *t) { float f1; ... }
 *                     const SimCode sim_code = {SIM_ABI, kernel};
 *
 * Addresses that a kernel handles are never pointers of the process: global memory has
 * the device's own addresses, shared and local memory have windows, so that a generic address
 * says by its range what it means, and a wild one is caught by the check.
 */
#ifndef MDL_SIMT_H
#define MDL_SIMT_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_SHARED_WINDOW UINT64_C(0x200000000000) /* generic address of shared offset 0 */
#define SIM_LOCAL_WINDOW UINT64_C(0x210000000000)  /* generic address of local offset 0 */
#define SIM_PARAM_WINDOW UINT64_C(0x220000000000)  /* of the parameter buffer; read only */
#define SIM_WINDOW_SPAN UINT64_C(0x1000000)

typedef struct SimThread SimThread;

/* Where in the source an instruction is: index into the kernel's table of sites. */
typedef struct {
    const char *file; /* as the PTX names it */
    int line;
    const char *instruction; /* "ld.global.f32" */
} SimSite;

typedef enum { SIM_SPACE_GENERIC, SIM_SPACE_GLOBAL, SIM_SPACE_SHARED, SIM_SPACE_LOCAL } SimSpace;
typedef enum { SIM_SHFL_IDX, SIM_SHFL_UP, SIM_SHFL_DOWN, SIM_SHFL_BFLY } SimShuffle;
typedef enum { SIM_VOTE_ALL, SIM_VOTE_ANY, SIM_VOTE_UNI, SIM_VOTE_BALLOT } SimVote;
typedef enum { SIM_RED_ADD, SIM_RED_MIN, SIM_RED_MAX, SIM_RED_AND, SIM_RED_OR, SIM_RED_XOR } SimRed;
typedef enum { SIM_BAR_SYNC, SIM_BAR_AND, SIM_BAR_OR, SIM_BAR_POPC } SimBar;

/* What the engine gives to translated code. Pointers, because the module is loaded by
 * dlopen and links nothing. All of them may report and not return. */
typedef struct {
    /* Checks an access of `bytes` (1, 2, 4, 8, 16: the whole vector) at an address of a space
     * (an offset for SHARED and LOCAL spaces; a generic address for GENERIC; device address for
     * GLOBAL), notes it, and returns where the bytes are. access: 1 read, 2 write, 4 atomic.
     * Alignment, bounds, space, device, use after free, uninitialised, race. */
    void *(*access)(SimThread *t, SimSpace space, uint64_t address, uint32_t bytes, int access,
                    uint32_t site);
    /* bar.sync/barrier.sync id, count (0: the whole block); AND, OR, POPC: value is a predicate,
     * the reduction of all is returned. bar.arrive is not supported: unknown. */
    uint32_t (*barrier)(SimThread *t, SimBar kind, uint32_t id, uint32_t count, uint32_t value,
                        uint32_t site);
    void (*warp_sync)(SimThread *t, uint32_t mask, uint32_t site); /* bar.warp.sync */
    /* shfl.sync: returns the value, *valid the predicate. clamp is PTX's c operand. */
    uint32_t (*shuffle)(SimThread *t, SimShuffle kind, uint32_t value, uint32_t lane_operand,
                        uint32_t clamp, uint32_t mask, bool *valid, uint32_t site);
    uint32_t (*vote)(SimThread *t, SimVote kind, bool predicate, uint32_t mask, uint32_t site);
    uint32_t (*match_any)(SimThread *t, uint64_t value, uint32_t mask, uint32_t site);
    uint32_t (*reduce)(SimThread *t, SimRed kind, bool is_signed, uint32_t value, uint32_t mask,
                       uint32_t site);
    uint32_t (*active_mask)(SimThread *t);
    void (*fence)(SimThread *t, int scope); /* membar: 0 cta, 1 gl, 2 sys */
    void (*trap)(SimThread *t, uint32_t site);
    /* Device address on this thread's device of a global variable of the module: the kernel's
     * number for it, in the order in which its code names them. */
    uint64_t (*global)(SimThread *t, uint32_t variable);
    /* vprintf of CUDA: format and packed arguments are generic addresses. */
    int (*print)(SimThread *t, uint64_t format, uint64_t args, uint32_t site);
    uint64_t (*clock)(SimThread *t);
} SimServices;

/* The fields that translated code reads; the engine's own lie behind them (exec.h). */
struct SimThread {
    const SimServices *service;
    const char *params; /* the packed parameter buffer */
    uint32_t tid[3], ntid[3], ctaid[3], nctaid[3];
    uint32_t lane, warp; /* of the block */
    uint32_t dynamic_shared_offset, dynamic_shared_bytes;
};

typedef struct {
    const char *name; /* mangled */
    void (*run)(SimThread *t);
    const SimSite *sites; /* site 0 is the kernel itself */
    uint32_t nsites;
    uint32_t nparams;
    const uint32_t *param_offset, *param_size;
    uint32_t param_bytes;
    uint32_t shared_bytes; /* static; offsets are given by the translator */
    uint32_t shared_align;
    uint32_t local_bytes; /* per thread: the depot */
    uint32_t max_threads; /* .maxntid: 0: not said */
    const char *unknown;  /* NULL, or what in it cannot be simulated: it must not be run */
} SimKernelTable;

/* Changes with this header: cached code of another version is not run. */
enum { SIM_ABI = 2 };

typedef struct {
    uint32_t abi;
    void (*run)(SimThread *t);
} SimCode;

#endif
