/* The RAM disk: the files of an archive, which are read only, and those that programs write. And what is open. */
#ifndef FILES_H
#define FILES_H

#include <stdint.h>

#include "../include/sizes.h"

struct process;
struct pipe;

struct file {
    char name[FILE_NAME_BYTES]; /* empty in a place that is free */
    uint32_t bytes;
    uint32_t users;             /* open files; the file goes when it has no name and no user */
    int removed;
    const uint8_t *archived;    /* its contents in the archive, or none */
    uint32_t pages[FILE_PAGES]; /* else its frames, as far as it was written */
};

enum open_kind { OPEN_CONSOLE, OPEN_FILE, OPEN_PIPE_TO_READ, OPEN_PIPE_TO_WRITE, OPEN_ZERO, OPEN_NULL };

struct open_file {
    uint32_t users;             /* descriptors; 0 in a place that is free */
    enum open_kind kind;
    uint32_t may_write;
    uint32_t offset;
    struct file *file;
    struct pipe *pipe;
    uint8_t reserve[OPEN_FILE_BYTES - 6 * 4];
};

_Static_assert(sizeof(struct open_file) == OPEN_FILE_BYTES, "size of an open file");

void archive_read(const uint8_t *archive, const uint8_t *end); /* make its files known */
struct file *file_named(const char *name);
struct file *file_create(const char *name);                    /* empty; null if there is no room or no right */
uint32_t file_read(const struct file *file, uint32_t offset, void *to, uint32_t bytes); /* bytes read */
uint32_t file_write(struct file *file, uint32_t offset, const void *from, uint32_t bytes);
void file_remove(struct file *file);
void file_release(struct file *file);                          /* one user less */

struct open_file *open_file_new(enum open_kind kind);          /* one user; or null */
void open_file_share(struct open_file *open);
void console_open(struct process *process);                    /* as descriptors 0, 1 and 2 */
int descriptor_for(struct open_file *open);                    /* the lowest that is free, or an error */

int32_t call_open(uint32_t path, uint32_t flags);
int32_t call_close(uint32_t descriptor);
int32_t call_read(uint32_t descriptor, uint32_t address, uint32_t bytes);
int32_t call_write(uint32_t descriptor, uint32_t address, uint32_t bytes);
int32_t call_seek(uint32_t descriptor, uint32_t offset);
int32_t call_duplicate(uint32_t descriptor);
int32_t call_remove(uint32_t path);
int32_t call_stat(uint32_t path, uint32_t status);

#endif
