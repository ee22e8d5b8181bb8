/* safetensors.h - files of named tensors: 8 bytes of header length, a JSON header, the
 * elements, little-endian and row-major, without holes.
 */
#ifndef MDL_SAFETENSORS_H
#define MDL_SAFETENSORS_H

#include "files.h"
#include "rt.h"

typedef enum { TENSOR_F16, TENSOR_BF16, TENSOR_F32, TENSOR_F64, TENSOR_OTHER } TensorType;

typedef struct {
    const char *name;
    TensorType type;
    int rank; /* may exceed MDL_RANK; then dim holds the first ones */
    int64_t dim[MDL_RANK];
    int64_t count;
    uint64_t begin, end; /* bytes from the end of the header */
} Tensor;

typedef struct TensorFile TensorFile;

/* Opens and checks a file; *file is to be closed with tensors_close. `checked`: the file
 * must carry a checksum, which is compared. */
int tensors_open(TensorFile **file, const char *path, bool checked, Problem *p);
void tensors_close(TensorFile *file);
int64_t tensors_count(const TensorFile *file);

/* NULL when there is none of that name (key); valid until the file is closed. */
const Tensor *tensors_find(const TensorFile *file, const char *name);
const char *tensors_metadata(const TensorFile *file, const char *key);

/* Reads all elements of `t`, converted to real; `out` has room for t->count. */
int tensors_read(const TensorFile *file, const Tensor *t, real *out, Problem *p);

/* What tensors_write takes: names and data stay the caller's. */
typedef struct {
    const char *name;
    int rank;
    const int64_t *dim;
    const real *data; /* NULL: lent when its turn comes */
} TensorItem;
/* Gives the elements of items[item], which are there until take_back. */
typedef struct {
    void *ctx;
    int (*lend)(void *ctx, int64_t item, const real **data, Problem *p);
    void (*take_back)(void *ctx, int64_t item);
} TensorLender;
typedef struct {
    const char *key, *value;
} TensorNote;

/* Writes items[n] in order, as f32 or (`as_real`) in the type of real, with the notes as
 * __metadata__; `checked` adds a checksum of all that the file holds. The file appears
 * under its name when it is complete and on the disk. lender: NULL where all data are there. */
int tensors_write(const char *path, const TensorItem *items, int64_t n, const TensorLender *lender,
                  const TensorNote *notes, int nnotes, bool as_real, bool checked, Problem *p);

#endif
