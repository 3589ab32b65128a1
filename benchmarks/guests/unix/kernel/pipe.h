/* Pipes: a page of bytes on their way from one process to another. */
#ifndef PIPE_H
#define PIPE_H

#include <stdint.h>

#include "files.h"

int32_t pipe_read(struct pipe *pipe, uint8_t *to, uint32_t bytes);
int32_t pipe_write(struct pipe *pipe, const uint8_t *from, uint32_t bytes);
void pipe_leave(struct pipe *pipe, enum open_kind end); /* one of its two ends is open no more */

int32_t call_pipe(uint32_t descriptors);

#endif
