/* ptx.h - PTX text as a tree: what the parser makes and the translator reads.
 *
 * A PtxModule owns an arena in which everything lies: names, functions, instructions. The
 * parser checks form, not meaning: an opcode is a word with modifiers, whatever they are;
 * whether an instruction makes sense is the translator's business. Names are resolved: an
 * operand says which register, variable, function or label it is, by index.
 *
 *     ptx_lex.c     text → tokens, names (each one object), the arena
 *     ptx_parse.c   directives, variables, functions
 *     ptx_body.c    what lies between a function's braces
 */
#ifndef MDL_SIM_PTX_H
#define MDL_SIM_PTX_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ------------------------------------------------------------------ the arena */

typedef struct PtxChunk PtxChunk;
typedef struct {
    PtxChunk *chunks;
    size_t used, size; /* of the newest chunk */
    size_t total;
    jmp_buf *failed; /* where to go when memory runs out */
} PtxArena;

/* Zeroed memory; does not return when there is none. */
void *ptx_alloc(PtxArena *arena, size_t size);
/* The array with room for one more after its n elements. */
void *ptx_grow(PtxArena *arena, void *array, uint32_t n, size_t element);
char *ptx_text(PtxArena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3), nonnull));
void ptx_arena_free(PtxArena *arena);

/* ---------------------------------------------------------------------- types */

typedef enum {
    PTX_NONE,
    PTX_PRED,
    PTX_B8,
    PTX_B16,
    PTX_B32,
    PTX_B64,
    PTX_B128,
    PTX_U8,
    PTX_U16,
    PTX_U32,
    PTX_U64,
    PTX_S8,
    PTX_S16,
    PTX_S32,
    PTX_S64,
    PTX_F16,
    PTX_F16X2,
    PTX_BF16,
    PTX_BF16X2,
    PTX_F32,
    PTX_F64,
    PTX_U16X2,
    PTX_S16X2,
    PTX_TYPES
} PtxType;
PtxType ptx_type(const char *word);    /* "f32"; PTX_NONE when it is no type */
uint32_t ptx_type_bytes(PtxType type); /* PTX_PRED: 1 */
const char *ptx_type_name(PtxType type);

typedef enum {
    PTX_SPACE_NONE,
    PTX_GLOBAL,
    PTX_CONST,
    PTX_SHARED,
    PTX_LOCAL,
    PTX_PARAM /* of an entry or a function, or of a call */
} PtxSpace;

/* What a name means where it stands; each spelling has one PtxName. */
typedef enum { PTX_UNBOUND, PTX_REGISTER, PTX_REGISTERS, PTX_VARIABLE, PTX_FUNCTION } PtxMeaning;
typedef struct PtxLabel PtxLabel;
typedef struct PtxName PtxName;
struct PtxName {
    PtxName *next; /* of the same bucket */
    const char *text;
    PtxMeaning meaning;
    uint32_t index, count; /* REGISTERS: %r<count> from register index on */
    PtxLabel *labels;      /* of the function at hand, in any scope */
};

/* ------------------------------------------------------------------- operands */

typedef enum {
    PTX_OP_REGISTER,
    PTX_OP_INTEGER,  /* value */
    PTX_OP_F32,      /* value: bits */
    PTX_OP_F64,      /* value: bits */
    PTX_OP_SPECIAL,  /* text: "%tid.x" */
    PTX_OP_VARIABLE, /* index, plus value */
    PTX_OP_FUNCTION,
    PTX_OP_LABEL,
    PTX_OP_ADDRESS, /* items[0] (or none) + value */
    PTX_OP_VECTOR,  /* {a, b} */
    PTX_OP_LIST,    /* (a, b) */
    PTX_OP_PAIR,    /* a|b */
    PTX_OP_SINK     /* _ */
} PtxOperandKind;
typedef struct PtxOperand PtxOperand;
struct PtxOperand {
    PtxOperandKind kind;
    bool negated; /* !p */
    uint32_t index, nitems;
    uint64_t value;
    const uint32_t *target; /* of a label: its index, known at the function's end */
    const char *text;       /* as it was written, for messages */
    PtxOperand *items;
};

/* Where an instruction comes from: file 0 is unknown. */
typedef struct {
    uint32_t file, line;
} PtxPlace;

typedef struct {
    const char *opcode; /* "ld"; NULL: a label (index `label`) or a list of targets */
    const char **words; /* the modifiers: "global", "v4", "f32" */
    PtxOperand *operands;
    uint32_t nwords, noperands;
    uint32_t label; /* of a label, and of .branchtargets, whose list is operands[0] */
    bool targets;
    bool guarded, guard_negated;
    uint32_t guard; /* register */
    uint32_t text_line;
    PtxPlace place;
} PtxInstruction;

/* --------------------------------------------------- variables and functions */

/* In an initial value: an address of a variable (or function) at an offset; `shift` and
 * `bytes` say which of its bytes. */
typedef struct {
    PtxName *name;
    uint64_t offset, addend;
    uint32_t first, bytes;
} PtxReference;

typedef struct {
    PtxName *name;
    PtxSpace space;
    PtxType type;
    uint64_t bytes; /* 0: extern shared, of the launch */
    uint32_t align;
    bool external;
    int32_t function; /* that declares it, or -1 */
    uint8_t *initial; /* NULL: zero */
    uint64_t initial_bytes;
    PtxReference *references;
    uint32_t nreferences;
} PtxVariable;

typedef struct {
    PtxName *name;
    bool entry, defined;
    uint32_t *params, *results; /* variables */
    uint32_t nparams, nresults;
    PtxType *registers;
    uint32_t nregisters, nlabels;
    PtxInstruction *code;
    uint32_t ncode;
    uint32_t max_threads;
    PtxPlace place;
} PtxFunction;

typedef struct {
    const char *name; /* NULL: not said */
} PtxFile;

typedef struct {
    PtxArena arena;
    PtxName **buckets;
    PtxVariable *variables;
    PtxFunction *functions;
    PtxFile *files;
    uint32_t nvariables, nfunctions, nfiles;
    char version[16], target[24];
    char error[256]; /* "line 12: a name is expected" */
} PtxModule;

/* Reads `size` bytes of text. Returns false with `error` set; the module is to be freed in any
 * case. */
bool ptx_parse(PtxModule *module, const char *text, size_t size);
void ptx_free(PtxModule *module);

/* ------------------------------------------ between the parser's own files */

typedef enum {
    PTX_TOKEN_END,
    PTX_TOKEN_NAME, /* a word that may begin with _ $ % */
    PTX_TOKEN_DOT,  /* .word, also .L2::128B */
    PTX_TOKEN_INTEGER,
    PTX_TOKEN_F32,
    PTX_TOKEN_F64,
    PTX_TOKEN_STRING,
    PTX_TOKEN_MARK /* one character */
} PtxTokenKind;
typedef struct {
    PtxTokenKind kind;
    const char *at;
    size_t length;
    uint32_t line;
    uint64_t value; /* of a number: its bits */
    char mark;
} PtxToken;

/* A reference to a label, which may come before the label does. */
struct PtxLabel {
    PtxLabel *next;
    uint32_t scope, index;
};
typedef struct {
    PtxName *name;
    uint32_t *into;
    uint32_t scope, line;
} PtxPending;
/* A name's earlier meaning, to be restored at a scope's end. */
typedef struct {
    PtxName *name;
    PtxMeaning meaning;
    uint32_t index, count;
} PtxHidden;
/* A place into which code was inlined, and where that lies in turn. */
typedef struct {
    uint32_t file, line, column;
    bool inlined;
    uint32_t at_file, at_line, at_column;
} PtxLoc;

enum { PTX_DEPTH_MAX = 64, PTX_LOCS = 1024 };
typedef struct {
    PtxModule *module;
    const char *p, *end;
    uint32_t line;
    PtxToken token;
    jmp_buf failed;
    int32_t function; /* at hand, or -1 */
    PtxHidden *hidden;
    uint32_t nhidden;
    uint32_t marks[PTX_DEPTH_MAX], scopes[PTX_DEPTH_MAX], depth;
    uint32_t *parents; /* of scopes */
    uint32_t nscopes;
    PtxPending *pending;
    uint32_t npending;
    PtxName **labelled;
    uint32_t nlabelled;
    PtxLoc locs[PTX_LOCS];
    PtxPlace place;
} PtxParser;

void ptx_fail(PtxParser *parser, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));
void ptx_next(PtxParser *parser);
PtxName *ptx_name(PtxParser *parser, const char *text, size_t length);
bool ptx_is_mark(const PtxParser *parser, char mark);
bool ptx_is_dot(const PtxParser *parser, const char *word);
bool ptx_take_mark(PtxParser *parser, char mark);
bool ptx_take_dot(PtxParser *parser, const char *word);
void ptx_expect(PtxParser *parser, char mark);
PtxName *ptx_expect_name(PtxParser *parser);
uint64_t ptx_expect_integer(PtxParser *parser);
char *ptx_copy(PtxParser *parser, const char *text, size_t length);
/* Whether a word is one of "f32 f64". */
bool ptx_is_among(const char *word, const char *list);
double ptx_double(uint64_t bits);

void ptx_bind(PtxParser *parser, PtxName *name, PtxMeaning meaning, uint32_t index, uint32_t count);
void ptx_scope_open(PtxParser *parser);
void ptx_scope_close(PtxParser *parser);
/* ".global .align 4 .b8 x[12] = {...}" from after the space on; without the semicolon. */
uint32_t ptx_parse_variable(PtxParser *parser, PtxSpace space, bool external);
void ptx_parse_file(PtxParser *parser);
void ptx_parse_body(PtxParser *parser);

#endif
