/* fatbin.c - the images in nvcc's fat binaries.
 *
 *     header   0 u32 magic   6 u16 bytes of the header   8 u64 bytes of the entries
 *     entry    0 u16 kind    4 u32 bytes of its header   8 u64 bytes of the image
 *              16 u32 bytes when compressed, else 0   28 u32 architecture   40 u64 flags
 *
 * An entry's image follows its header. The runtime is given nothing but a pointer, so the
 * header's own size is the limit there; a file's section is the limit in a file.
 */
#include "fatbin.h"

#include <string.h>

enum { MAGIC_BYTES = 16, ENTRY_BYTES = 48 };
static const uint32_t MAGIC = 0xBA55ED50;

static uint64_t number_at(const char *data, int bytes)
{
    uint64_t value = 0;
    memcpy(&value, data, (size_t)bytes); /* both are little endian */
    return value;
}

bool fatbin_open(Fatbin *fatbin, const void *data, uint64_t limit)
{
    if (limit < MAGIC_BYTES || number_at(data, 4) != MAGIC)
        return false;
    const char *at = data;
    const uint64_t header = number_at(at + 6, 2), entries = number_at(at + 8, 8);
    if (header < MAGIC_BYTES || header > limit || entries > limit - header)
        return false;
    *fatbin = (Fatbin){at, header + entries, header};
    return true;
}

int fatbin_next(Fatbin *fatbin, FatbinImage *image)
{
    const uint64_t left = fatbin->size - fatbin->at;
    if (left == 0)
        return 0;
    const char *entry = fatbin->data + fatbin->at;
    if (left < ENTRY_BYTES)
        return -1;
    const uint64_t header = number_at(entry + 4, 4), size = number_at(entry + 8, 8);
    if (header < ENTRY_BYTES || header > left || size > left - header)
        return -1;
    *image = (FatbinImage){.kind = (uint16_t)number_at(entry, 2),
                           .architecture = (uint32_t)number_at(entry + 28, 4),
                           .compressed = number_at(entry + 16, 4) != 0,
                           .data = entry + header,
                           .size = size};
    fatbin->at += header + size;
    return 1;
}

bool fatbin_find_ptx(const Fatbin *fatbin, uint32_t architecture, FatbinImage *ptx)
{
    Fatbin walk = *fatbin;
    FatbinImage image;
    bool found = false;
    while (fatbin_next(&walk, &image) == 1) {
        if (image.kind != FATBIN_PTX || image.compressed)
            continue;
        bool fits = image.architecture <= architecture;
        bool better = !found || (ptx->architecture <= architecture
                                     ? fits && image.architecture > ptx->architecture
                                     : image.architecture < ptx->architecture);
        if (better)
            *ptx = image;
        found = true;
    }
    return found;
}
