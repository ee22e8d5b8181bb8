/* files_out.h - writing files so that a reader sees all of one or nothing, and a
 * directory for what is thrown away again. Errors have been said when false is returned. */
#ifndef MDLC_FILES_OUT_H
#define MDLC_FILES_OUT_H

#include "base.h"

/* Writes by way of a temporary file beside it and a rename. `mode`: of a new file, less
 * the umask; one that is there keeps its own, with `mode`'s execute bits. What is not a
 * regular file (/dev/null, a pipe) is written to; a link's target is replaced. */
bool file_replace(const char *path, const void *bytes, size_t size, unsigned mode);
/* The same with a file's contents. */
bool file_replace_by_copy(Arena *a, const char *path, const char *from, unsigned mode);

/* Makes it and the directories above it, where they are not there. */
bool directory_make(Arena *a, const char *path, unsigned mode);

/* A private directory under $TMPDIR or /tmp; NULL with a message. */
const char *scratch_make(Arena *a);
/* Removes it with the files in it. NULL: nothing to do. */
void scratch_remove(Arena *a, const char *dir);

/* The folder above the one that the file is really in: where bin/NAME was installed; NULL: there
 * is no such file. */
const char *folder_above(Arena *a, const char *file);

/* At most `limit` bytes; NULL with errno set. *size may be NULL. */
char *file_read(Arena *a, const char *path, size_t limit, size_t *size);

#endif
