/* tensors.c - what is in a safetensors file.
 *
 * usage: reference_tensors FILE.safetensors
 *
 * Out: a line for every tensor, NAME and its dimensions, in the order of the file's header.
 * Exit code 0; 1 for a header that is not one; 2 for a file that cannot be read.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MOST = 1 << 26;

/* 8 bytes that hold the header's length, lowest first, and the header. */
static json_t *header_read(FILE *f)
{
    unsigned char start[8];
    uint64_t length = 0;
    if (fread(start, 1, 8, f) != 8)
        return NULL;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | start[i];
    if (length > MOST)
        return NULL;
    char *text = malloc(length + 1);
    json_t *header = NULL;
    if (text && fread(text, 1, length, f) == length)
        header = json_loadb(text, length, 0, NULL);
    free(text);
    return header;
}

static bool tensor_print(const char *name, const json_t *tensor)
{
    const json_t *shape = json_object_get(tensor, "shape"), *dim;
    size_t i;
    if (!json_is_array(shape))
        return false;
    printf("%s", name);
    json_array_foreach(shape, i, dim) printf(" %" JSON_INTEGER_FORMAT, json_integer_value(dim));
    putchar('\n');
    return true;
}

int main(int argc, char **argv)
{
    FILE *f = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!f) {
        if (argc == 2)
            perror(argv[1]);
        else
            fprintf(stderr, "usage: reference_tensors FILE.safetensors\n");
        return 2;
    }
    json_t *header = header_read(f);
    bool good = json_is_object(header);
    const char *name;
    json_t *tensor;
    json_object_foreach(header, name, tensor)
    {
        if (good && strcmp(name, "__metadata__") != 0)
            good = tensor_print(name, tensor);
    }
    if (!good)
        fprintf(stderr, "%s: not the header of a safetensors file\n", argv[1]);
    json_decref(header);
    fclose(f);
    return good ? 0 : 1;
}
