/* svg.h - the sheet that the parts of the schedule's picture are drawn on. */
#ifndef MDLC_SVG_H
#define MDLC_SVG_H

#include "plan.h"

/* Colours go by what is done; of a device's chunks each later one is lighter. */
typedef enum { PAINT_F, PAINT_B, PAINT_I, PAINT_W, PAINT_UPDATE, PAINTS } Paint;
enum { SHADES = 4 };

typedef struct {
    const Plan *plan;
    Arena *arena;
    Text *out;
    double x, width;    /* of the time axis, in pixels */
    double y;           /* of the first row */
    double lane, curve; /* heights of a row's runs and of its memory; curve 0: none */
    double pitch;       /* from row to row */
    bool merged;        /* too many runs to draw each: shares of the time are drawn */
    int columns;        /* merged: pieces of the time axis */
} Sheet;

double svg_x(const Sheet *s, double seconds);
double svg_row(const Sheet *s, int device); /* top of its lane */

void svg_runs(const Sheet *s, int device);
void svg_merged_runs(const Sheet *s, int device);
void svg_transfers(const Sheet *s);
void svg_copies(const Sheet *s, int device);
/* `most`: the bytes that fill the height. */
void svg_kept(const Sheet *s, int device, const KeptSteps *kept, int64_t most);

/* What an action is painted as; false for those that are not drawn in the lane. */
bool svg_paint(const Action *a, Paint *paint);

#endif
