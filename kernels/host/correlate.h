/* correlate.h - a convolution as the product of a filter matrix and the columns of
 * image patches; shared by the forward pass and, with the filter turned round, by the
 * gradient of the input.
 */
#ifndef MDL_CORRELATE_H
#define MDL_CORRELATE_H

#include "micro.h"

/* Element (k, c, p) of a filter, k output channel, c input channel, p place in the window in
 * row-major order, is at w[group * k * c elements + first + k row + c column + p place]. */
typedef struct {
    const real *w;
    int64_t first, row, column, place;
} Filter;

/* y[B,K,OH,OW] = finish(filter applied to x[B,C,H,W]); finish->row_bias has K elements. */
void correlate(Team *team, real *y, const real *x, Filter filter, const Conv2d *s,
               const Finish *finish);

/* Copies rows [top, top + rows) of image[C,H,W] to padded[C][rows][pitch]; row and column
 * numbers are those of the image with `pad` zeros around it. */
void pad_image(real *padded, const real *image, int64_t C, int64_t H, int64_t W, int64_t pad,
               int64_t top, int64_t rows, int64_t pitch);

#endif
