/* emit.h - printing a Program: as C for the host, or as C and CUDA for GPUs. No decisions are
 * left to make here; the two targets are two spellings of the same calls. */
#ifndef MDLC_EMIT_H
#define MDLC_EMIT_H

#include "program.h"

typedef struct {
    const Call *call; /* one of the calls that share the loop */
    const char *name;
    int device;
} MapEntry;
typedef VEC(MapEntry) MapList;

/* What orders the streams of a GPU: recorded after actions of one kind, `slots` of them in
 * turn by micro-batch; its first in the stage's array is `first`. */
typedef struct {
    int key; /* event_key() of the actions */
    int first, slots;
    const char *name; /* "e_forward" */
} EventKind;

/* The emitter of one stage's file. */
typedef struct {
    const Program *p;
    const Diag *diag;
    const Device *d;
    int stage;
    Arena *arena;
    Text *out;
    const char *real;
    int indent;
    bool used_m, used_i;      /* what the function under way has spoken of */
    int last_file, last_line; /* source line that the last comment named */
    MapList *maps;            /* of this file; on GPUs of the whole model */
    bool gpu;
    VEC(EventKind) events; /* GPUs */
    int nevents;
    Text call; /* the call under way */
    int args;
} Emit;

/* One file of the generated program; text is in the arena. */
typedef struct {
    const char *name, *text;
} EmittedFile;
typedef VEC(EmittedFile) EmittedFiles;

/* stage_0.c … trainer.c and CMakeLists.txt; for GPUs fused.cu and fused.h besides. */
EmittedFiles emit_files(const Program *p, const Diag *d);

/* -- lines: each call prints one, indented */
void emit_line(Emit *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
void emit_blank(Emit *e);
void emit_open(Emit *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
void emit_close(Emit *e);
/* "name.mdl:12  the source line", when it is not the one named last. */
void emit_source_comment(Emit *e, Place at);

/* -- text from the model: safe inside a comment, inside a string */
const char *emit_comment_text(Arena *a, const char *s);
const char *emit_string(Arena *a, const char *s); /* with its quotes */

/* -- calls: name and arguments, wrapped at 100 columns */
void emit_call(Emit *e, const char *name);
void emit_arg(Emit *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
void emit_arg_ref(Emit *e, const Ref *r);
void emit_arg_count(Emit *e, bool batched, int64_t each); /* "B * each" */
void emit_end(Emit *e, const char *before, const char *after);
/* A kernel's call: "gemm(s->team" and ");", or "KERNEL(gpu_gemm(s->gpu" and "));". */
void emit_kernel(Emit *e, const char *name);
void emit_kernel_end(Emit *e);

const char *emit_ref(Emit *e, const Ref *r);
const char *emit_buffer_member(Emit *e, int buffer, const char *m, const char *i);
const char *emit_number(Emit *e, double x);
/* The fewest digits, at most `most` (9: a float, 17: a double), that read back as x. */
const char *emit_shortest(Emit *e, double x, int most);
const char *emit_count(Emit *e, bool batched, int64_t each);
const char *emit_ctype(const Emit *e, Dtype t);
const char *emit_half_kind(Dtype t);        /* "HALF_BF16" */
const char *emit_shape(Emit *e, ValueId v); /* "[8, 1024]" with the batch */

/* -- parts of a stage */
void emit_op(Emit *e, const Call *c); /* emit_ops.c: by the operation's row */
void emit_maps(Emit *e);              /* emit_map.c: the fused loops */
void emit_fused_call(Emit *e, const Call *c);
/* The argument that hands a kernel its tail. */
void emit_tail(Emit *e, const Call *c);
/* emit_offload.c: what is offloaded, to the host and back. */
void emit_copies(Emit *e);
const char *emit_copy_function(Emit *e, bool in, int chunk); /* "copy_out" */
/* emit_update.c: the functions for whole weights. */
void emit_update(Emit *e);
/* emit_schedule.c: a list, or of a step's list what comes before the update, or the update. */
typedef enum { SCHEDULE_ALL, SCHEDULE_PASSES, SCHEDULE_UPDATE } SchedulePart;
void emit_schedule(Emit *e, const ActionList *list, SchedulePart part, bool eval);
void emit_trainer(const Program *p, const Diag *d, Text *out);
const char *emit_link_name(Emit *e, int link);                       /* "TO_2_h" */
const char *emit_link_function(Emit *e, const char *verb, int link); /* "send_h_to_2" */
EmittedFile emit_cmake(const Program *p);

/* -- GPUs: emit_gpu.c */
int emit_event_key(const Action *a);
void emit_find_events(Emit *e);
void emit_events(Emit *e);
void emit_link_functions(Emit *e);
const char *emit_event(Emit *e, int key, const char *m); /* "e_forward(s, m)" */
void emit_gpu_description(Emit *e);
/* Why a step's passes cannot be captured as a CUDA graph; NULL: they can. */
const char *emit_no_graph(const Program *p);
/* The fused kernels of all stages, which are found first: fused.cu and fused.h. */
void emit_fused_files(const Program *p, const Diag *d, MapList *maps, EmittedFiles *files);
const char *emit_run_function(Emit *e, RunKind run, int chunk);

#endif
