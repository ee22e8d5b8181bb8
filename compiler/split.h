/* split.h - parts of split.c that the search uses. */
#ifndef MDLC_SPLIT_H
#define MDLC_SPLIT_H

#include "outline.h"

/* The cut whose largest piece takes least time; piece: of each unit. */
void split_evenly(const Outline *o, int *piece);

#endif
