/* data.h - samples: from files, or made up.
 *
 * A DataSet is a numbered list of samples, shared by all stages and never changed after
 * it was opened. Every array is a file's elements, still in the file's own type; they
 * are converted and checked sample by sample, when they are asked for.
 */
#ifndef MDL_DATA_H
#define MDL_DATA_H

#include "files.h"
#include "rt.h"

typedef enum {
    ELEMENT_BOOL,
    ELEMENT_U8,
    ELEMENT_I8,
    ELEMENT_U16,
    ELEMENT_I16,
    ELEMENT_U32,
    ELEMENT_I32,
    ELEMENT_U64,
    ELEMENT_I64,
    ELEMENT_F32,
    ELEMENT_F64,
    ELEMENT_BF16,
    ELEMENT_F16,
} ElementType;

enum { ARRAY_RANK = MDL_RANK + 1 };

/* A file's elements. dim[0] counts samples. */
typedef struct {
    const char *path; /* for messages; the caller's */
    ElementType type;
    bool big_endian;
    int rank;
    int64_t dim[ARRAY_RANK];
    const unsigned char *elements;
    int64_t first, stride; /* sample i's first element is number first + i * stride */
    FileBytes file;        /* owned */
    void *memory;          /* owned: elements that are not in the file as such */
} Array;

int64_t element_size(ElementType type);
void array_release(Array *a);

/* Inputs of 16-bit floats, MDL_BF16 and MDL_F16. */
static inline bool type_is_half(MdlType type)
{
    return type == MDL_BF16 || type == MDL_F16;
}
const char *half_name(MdlType type); /* "bf16" */
/* x rounded once, to nearest even. false: x is not finite, or rounds to infinity. */
bool half_round_real(MdlType type, double x, uint16_t *half);

/* Fills an array from a file; the elements are all there when it returns. On failure
 * nothing is owned. */
int npy_read(Array *a, const char *path, Problem *p);
int idx_read(Array *a, const char *path, Problem *p);

/* Columns of one file go to arrays[n] in the order of `order`, which are numbers of inputs. */
int csv_read(Array *arrays, const MdlInput *inputs, const int *order, int n, const char *path,
             Problem *p);

/* Copies sample `sample` for `input`, converted and checked. `count`: elements a sample. */
int array_sample(const Array *a, int64_t sample, const MdlInput *input, int64_t count, void *out,
                 Problem *p);

/* Element e of sample i of synthetic data depends on (seed, name, i, e) alone: reals are
 * uniform in [-1, 1), integers in [0, limit), or {0, 1} without a limit. */
void synthetic_sample(const MdlInput *input, uint64_t seed, int64_t sample, int64_t count,
                      void *out);

/* Files of tokens, cut into windows that are as long as the model's one input. `kind`:
 * "text", one file of bytes; or "tokens", the shards that `path` names or matches. */
typedef struct TokenFiles TokenFiles;
bool kind_has_windows(const char *kind); /* one of the two; false for NULL */
int tokens_open(TokenFiles **files, const char *path, const char *kind, const MdlModel *model,
                Problem *p);
void tokens_close(TokenFiles *files);
int64_t tokens_windows(const TokenFiles *files);
/* Copies a window for `input`, one token further on for a target, converted and checked. */
int tokens_window(const TokenFiles *files, int64_t window, const MdlInput *input, void *out,
                  Problem *p);

/* The place of `index` in epoch `epoch`'s order of n samples: for fixed seed and epoch a
 * permutation of [0, n), n >= 1. */
int64_t permutation(int64_t index, int64_t n, uint64_t seed, uint64_t epoch);

/* What a data set is opened from: an item of the model, changed by the command line. */
typedef struct {
    const char *input; /* NULL: the one positional file */
    const char *path;
    const char *kind; /* "npy", "idx", "csv", "text", "tokens" */
} DataFile;

typedef struct {
    const char *which;  /* "train", "eval", for messages */
    const char *option; /* "--data", "--eval-data", for messages */
    DataFile *files;    /* owned */
    int nfiles;
    bool synthetic, shuffle;
    int64_t take, skip;    /* take 0: all */
    int64_t synthetic_all; /* samples of synthetic data where take does not say */
} DataRequest;

/* The data of `which` as the model and the arguments args[nargs] ("PATH", "NAME=PATH" or
 * "synthetic") give it. *found is false where neither gives any. */
int request_data(DataRequest *r, bool *found, const MdlModel *model, const char *which,
                 const char *const *args, int nargs, Problem *p);

typedef struct DataSet DataSet;
int dataset_open(DataSet **set, const DataRequest *request, const MdlModel *model, uint64_t seed,
                 Problem *p);
void dataset_close(DataSet *set);
int64_t dataset_samples(const DataSet *set);

/* Input `input` of the sample at `position` (>= 0) of the endless sequence of epochs. */
int dataset_load(const DataSet *set, int input, int64_t position, void *out, Problem *p);

#endif
