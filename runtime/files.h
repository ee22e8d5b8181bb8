/* files.h - reading and writing files with errors that say what to do.
 *
 * Whatever can go wrong with a file is put into a Problem by the function that found
 * it, with the file's name; the caller only passes it on. A Problem keeps the first
 * text it is given.
 */
#ifndef MDL_FILES_H
#define MDL_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXIT_RUN = 1 /* the run or its data failed */, EXIT_USE = 2 /* wrong use, no such file */ };

typedef struct {
    int exit_code; /* 0: nothing has gone wrong */
    char text[1000];
} Problem;

/* Records what went wrong and returns MDL_FAILED. */
int problem_set(Problem *p, int exit_code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int problem_no_memory(Problem *p, const char *what);

/* Copies at most `size` - 1 bytes of text[length] for a message: what is not printable
 * ASCII becomes '?', what is cut ends in "...". Returns `out`. */
char *text_printable(char *out, size_t size, const char *text, size_t length);

/* 1234567 as "1,234,567"; `out` has room for 32 bytes. Returns `out`. */
char *text_number(char *out, int64_t value);

/* "[3,28,28]"; `out` has room for TEXT_SHAPE bytes. Returns `out`. */
enum { TEXT_SHAPE = 200 };
char *text_shape(char *out, const int64_t *dim, int rank);

/* The product of dim[rank] into *out; false when one is negative or it overflows. */
bool size_product(int64_t *out, const int64_t *dim, int rank);

/* A file's bytes, mapped for reading, owned until file_release. */
typedef struct {
    const unsigned char *bytes;
    size_t size;
} FileBytes;
int file_map(FileBytes *file, const char *path, Problem *p);
void file_release(FileBytes *file);

/* Writes all of it, through short writes and interruptions; false leaves errno. */
bool file_write_all(int fd, const void *bytes, size_t size);

/* A file that appears under its name only when it is complete: file_replace_begin opens
 * PATH.tmp, file_replace_end flushes it to the disk and renames it; with `keep` false it
 * is removed instead and PATH stays as it was. */
typedef struct {
    int fd;
    char *path, *temporary;
} FileReplace;
int file_replace_begin(FileReplace *r, const char *path, Problem *p);
int file_replace_end(FileReplace *r, bool keep, Problem *p);

/* Whether a file can be made at `path`: its folder exists and may be written to, or the file
 * may. `replaced`: it is to be made by FileReplace, which must not take a device's place. */
int file_check_target(const char *option, const char *path, bool replaced, Problem *p);

#endif
