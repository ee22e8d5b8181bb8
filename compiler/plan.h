/* plan.h - what `mdlc plan` knows of a Program, and the forms in which it shows it. */
#ifndef MDLC_PLAN_H
#define MDLC_PLAN_H

#include "cost_gpu.h"
#include "program.h"
#include "timeline.h"

/* Layers in a row that differ in one number: "h.0" … "h.5", 6 of them. A single one has
 * first and last the same. */
typedef struct {
    const char *first, *last;
    int count;
} LayerRun;
typedef VEC(LayerRun) LayerRuns;

typedef struct {
    LayerRuns *runs; /* [chunks] */
    int *chunk_of;   /* [ops]: of forward operations; NONE */
    int *run_of;     /* [ops]: which of its chunk's runs; NONE where that has none */
} PlanLayers;

typedef struct {
    const char *layers;         /* "wte ... h.2" */
    int64_t parameters, copies; /* elements owned; elements of tied weights owned elsewhere */
    double forward, backward;   /* FLOPs of one step */
    int64_t sent, received;     /* bytes of one step */
} StageFacts;

/* What the estimates count with, and which of it is the default of a devices item. */
typedef struct {
    double value;
    bool standard;
} Rate;
typedef struct {
    const char *device;            /* of the catalogue, whose the defaults are; NULL: a core */
    Rate compute, bandwidth, link; /* FLOP/s, bytes/s, bytes/s */
    Rate latency;                  /* s */
} Rates;

typedef struct {
    const Program *p;
    Arena *arena;
    PlanLayers layers;
    StageFacts *stages; /* [devices] */
    int *messages;      /* [links]: in one step */
    GpuWork *gpu;       /* [devices]; NULL: the host's plan */
    Rates rates;
    Timeline *seconds, *units;
    Timeline *measured; /* of a trace, to be drawn under the plan; NULL */
    const char *lengths; /* of the unit times: "F = 1 and B = 2" */
    const char *formula; /* which the bubble of the unit times is: "(p-1)/(m+p-1)"; NULL */
} Plan;

/* Messages of one step in one direction. */
typedef struct {
    int64_t messages, bytes;
} Traffic;
Traffic plan_traffic(const Plan *plan, int from, int to);

/* Gathers everything that the views below show. */
Plan *plan_make(Arena *a, const Program *p);
PlanLayers plan_layers(Arena *a, const Program *p);
/* "wte ... h.2" of all runs of a device's chunks; "" where nothing has a name. */
const char *plan_layers_text(Arena *a, const Program *p, const PlanLayers *l, int device);

/* "h.5" or "gradient of h.5". */
const char *plan_link_name(Arena *a, const Link *l);
/* With the micro-batch: "f32[8, 1024, 768]". */
const char *plan_shape(Arena *a, const Program *p, ValueId v);
const char *plan_link_kind(LinkKind k); /* "activation" */
/* "1.25 ms" */
const char *plan_show_seconds(Arena *a, double seconds);
/* search_text.c */
struct SearchResult;
void search_text(const struct SearchResult *r, const Model *m, Text *out);

/* The views; each adds its text to `out`. */
void plan_text(const Plan *plan, Text *out);    /* report_text.c: for people */
void plan_picture(const Plan *plan, Text *out); /* report_text.c: the schedule in letters */
bool plan_json(const Plan *plan, Text *out);    /* report_json.c; false: out of memory */
void plan_csv(const Program *p, Text *out);     /* csv.c: as torch.distributed.pipelining */
void plan_dot(const Plan *plan, Text *out);     /* dot.c: Graphviz */
void plan_svg(const Plan *plan, Text *out);     /* svg.c: the schedule drawn */
void plan_trace(const Plan *plan, Text *out);   /* plan_trace.c: trace events, for Perfetto */

/* svg_text.c: bytes that are not UTF-8 and control characters become U+FFFD. */
const char *svg_escape(Arena *a, const char *s);       /* for XML */
const char *svg_escape_plain(Arena *a, const char *s); /* for a terminal, for JSON */
/* At most n characters, the middle left out: "h.3.attn…c_proj". */
const char *svg_shorten(Arena *a, const char *s, int n);
int svg_length(const char *s); /* in characters */
/* The string with its quotes. */
const char *dot_quote(Arena *a, const char *s);

#endif
