/* translate.h - PTX to C: what the files of the translator share.
 *
 *     translate.c            a kernel: functions, what the engine is told of it
 *     translate_layout.c     shared and local memory, sites, who calls whom
 *     translate_operands.c   operands as C expressions, modifiers, statements
 *     translate_memory.c     ld st atom red cvta cp.async prefetch isspacep
 *     translate_integer.c    add mul mad shl bfe lop3 prmt ... and carries
 *     translate_float.c      add fma min sqrt ex2 ... of f32, f64 and halves
 *     translate_compare.c    setp set selp slct, logic of predicates
 *     translate_convert.c    cvt mov
 *     translate_control.c    bra brx call ret exit trap
 *     translate_warp.c       bar shfl vote match redux membar
 *     translate_matrix.c     ldmatrix mma wmma
 *
 * An instruction's function takes the modifiers that it understands; what is left over makes
 * the instruction unknown, and with it the kernels that can reach it. Their text says which.
 *
 * The C of a kernel depends on its own instructions and on those of the functions that it reaches:
 * functions and variables are counted as it comes to them, lines of the source are no part of it.
 * So a kernel that has been compiled is found again when its neighbours have changed.
 */
#ifndef MDL_SIM_TRANSLATE_H
#define MDL_SIM_TRANSLATE_H

#include <stdio.h>

#include "ptx.h"
#include "simt.h"

/* A line of the table of sites: file, line, the instruction's words. */
typedef struct {
    PtxPlace place;
    const char *text;
} Site;

/* What is known of a function once it is translated. */
typedef struct {
    Site *sites;
    uint32_t nsites;
    uint32_t *callees, ncallees;
    uint64_t local_bytes; /* its own variables */
    bool reached;
    uint32_t number; /* among those that are reached: 0 is the kernel */
    bool pointed_to; /* its address is taken somewhere */
    bool has_async;
    const char *unknown; /* why it cannot be run, or NULL */
    char *text;          /* the C function */
    uint8_t *registers;  /* which are used */
    uint8_t *variables;  /* of the module: which it names */
    uint8_t *placed;     /* its parameters that have a place in local memory */
} Translated;

typedef struct {
    const PtxModule *module;
    PtxArena arena; /* texts of expressions: of this translation */
    jmp_buf no_memory;
    FILE *out; /* of the function at hand */
    Translated *functions;
    uint32_t entry;
    uint32_t *reached, nreached; /* functions in the order of their numbers */
    uint64_t *offsets;           /* of shared and local variables, by variable */
    uint32_t *numbers, nnumbers; /* what variables are called, by variable; 0: not yet named */
    uint32_t *globals, nglobals; /* global variables that are named */
    uint64_t shared_bytes;
    uint32_t shared_align;

    /* of the function and the instruction at hand */
    const PtxFunction *f;
    Translated *done;
    const PtxInstruction *i;
    uint32_t index, words_used;
    bool ftz, sat, relu, nan; /* modifiers of a float instruction */
    const char *rounding;
    jmp_buf unknown;
} Translator;

/* A kernel for the engine, and its C. */
typedef struct {
    PtxArena arena;       /* holds the rest, but for what the PtxModule holds */
    SimKernelTable table; /* `run` is NULL until the C is compiled and loaded */
    /* Variables of the module, in the order of the numbers that SimServices.global is given. */
    const uint32_t *variables;
    uint32_t nvariables;
    char *code; /* NULL: it cannot be run, and table.unknown says why */
    size_t size;
} TranslatedKernel;
/* Translates an entry that is defined. false: no memory; it is to be freed in any case. Kernels of
 * one module may be translated at the same time. */
bool translate_kernel(const PtxModule *module, uint32_t entry, TranslatedKernel *kernel);
void translate_free(TranslatedKernel *kernel);

typedef void TranslateFn(Translator *t);
typedef struct {
    const char *opcode;
    TranslateFn *translate;
} TranslateRow;
extern const TranslateRow translate_memory_rows[], translate_integer_rows[], translate_float_rows[],
    translate_compare_rows[], translate_convert_rows[], translate_control_rows[],
    translate_warp_rows[], translate_matrix_rows[];

/* ------------------------------------------------------------------- operands */

/* Leaves the function: it cannot be simulated. NULL: the instruction as it is written. */
void unknown(Translator *t, const char *why) __attribute__((noreturn));
void emit(Translator *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *text(Translator *t, const char *format, ...)
    __attribute__((format(printf, 2, 3), nonnull));

bool word(Translator *t, const char *modifier); /* takes it if it is there */
const char *space_word(Translator *t);          /* "SIM_SPACE_GLOBAL"; NULL: parameters */
PtxType type_word(Translator *t); /* takes the next that is a type; unknown if there is none */
PtxType type_among(Translator *t, const char *types); /* ... and that is one of "f32 f64" */
/* One of "rn rz rm rp", else the default. */
const char *rounding_word(Translator *t, const char *otherwise);

const PtxOperand *operand(Translator *t, uint32_t n);
void operand_count(Translator *t, uint32_t least, uint32_t most);
/* The operand's value as an expression of the type's C type. */
const char *value(Translator *t, const PtxOperand *o, PtxType type);
const char *source(Translator *t, uint32_t n, PtxType type); /* value of operand n */
const char *address_value(Translator *t, const PtxOperand *o, uint32_t *bits);
/* Assigns an expression of the type to a register: wider ones are extended. */
void assign(Translator *t, const PtxOperand *o, PtxType type, const char *expression);
void assign_first(Translator *t, PtxType type, const char *expression);
uint64_t constant(Translator *t, uint32_t n); /* an operand that must be a number */

const char *c_type(PtxType type);
const char *c_name(PtxType type); /* as the helpers' names end: "u32" */
uint32_t type_bits(PtxType type);
bool type_is_float(PtxType type); /* f32 or f64 */
bool type_is_half(PtxType type);  /* also of two */
bool type_is_pair(PtxType type);  /* two halves or integers in 32 bits */
bool type_is_signed(PtxType type);
bool type_is_integer(PtxType type); /* also bits */
PtxType type_of_lane(PtxType pair);
PtxType type_unsigned(PtxType type);
PtxType type_signed(PtxType type);
/* A half as float or double, and a float or double as half. */
const char *half_to_float(Translator *t, PtxType half, const char *expression);
const char *float_to_half(Translator *t, PtxType half, bool from_double, const char *expression);
const char *compare(Translator *t, const char *comparison, PtxType type, const char *a,
                    const char *b);

/* ---------------------------------------------------------------------- layout */

/* The site of the instruction at hand, as an expression. */
const char *site(Translator *t);
const char *instruction_text(Translator *t, const PtxInstruction *i);
/* Before any function is translated: frames, parameters; behind all: shared memory. */
void layout_begin(Translator *t);
void layout_shared(Translator *t);
/* The function is reached: it is translated, too. */
void note_reached(Translator *t, uint32_t function);
void note_callee(Translator *t, uint32_t function);
uint32_t variable_number(Translator *t, uint32_t variable); /* g1, s2, b3, a4 */
bool is_global(const PtxVariable *v);
/* What a pointer to a function holds: no address of any memory. */
uint64_t function_address(uint32_t function);
bool is_formal(const Translator *t, uint32_t variable); /* of the function at hand */
uint64_t local_need(Translator *t);                     /* of the kernel's threads */
uint64_t frame_bytes(const Translator *t, uint32_t function);
/* Room in the function's frame. */
uint64_t frame_add(Translator *t, uint32_t function, uint64_t bytes, uint32_t align);
/* Copies that are still to come: "sim_async" in functions that have cp.async. */
void emit_async_finish(Translator *t);

#endif
