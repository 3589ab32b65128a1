/* Pipes: a ring of bytes. Readers sleep while it is empty, writers while it is full; both on the address of the pipe. */
#include "pipe.h"

#include "../include/abi.h"
#include "bytes.h"
#include "frames.h"
#include "process.h"
#include "scheduler.h"
#include "signals.h"

struct pipe {
    uint8_t *ring;              /* null in a place that is free */
    uint32_t first, bytes;      /* what is in it */
    int readers, writers;       /* 1 while that end is open */
};

static struct pipe pipes[PIPES];

static uint32_t least(uint32_t one, uint32_t two)
{
    return one < two ? one : two;
}

int32_t pipe_read(struct pipe *pipe, uint8_t *to, uint32_t bytes)
{
    uint32_t done = 0;

    while (!pipe->bytes && bytes) {
        if (!pipe->writers)
            return 0;           /* the end of what will ever come */
        if (!sleep_on(pipe))
            return ERROR_INTERRUPTED;
    }
    bytes = least(bytes, pipe->bytes);
    while (done < bytes) {
        const uint32_t piece = least(bytes - done, PIPE_BYTES - pipe->first);

        memcpy(to + done, pipe->ring + pipe->first, piece);
        pipe->first = (pipe->first + piece) % PIPE_BYTES;
        pipe->bytes -= piece;
        done += piece;
    }
    wake(pipe);
    return (int32_t)done;
}

/* As much as there is room for now. */
static uint32_t put(struct pipe *pipe, const uint8_t *from, uint32_t bytes)
{
    uint32_t done = 0;

    bytes = least(bytes, PIPE_BYTES - pipe->bytes);
    while (done < bytes) {
        const uint32_t end = (pipe->first + pipe->bytes) % PIPE_BYTES;
        const uint32_t piece = least(bytes - done, PIPE_BYTES - end);

        memcpy(pipe->ring + end, from + done, piece);
        pipe->bytes += piece;
        done += piece;
    }
    return done;
}

int32_t pipe_write(struct pipe *pipe, const uint8_t *from, uint32_t bytes)
{
    uint32_t done = 0;

    while (done < bytes) {
        if (!pipe->readers) {
            signal_send(current, SIGNAL_PIPE);
            return ERROR_BROKEN_PIPE;
        }
        if (pipe->bytes < PIPE_BYTES) {
            done += put(pipe, from + done, bytes - done);
            wake(pipe);
        } else if (!sleep_on(pipe))
            return done ? (int32_t)done : ERROR_INTERRUPTED;
    }
    return (int32_t)done;
}

void pipe_leave(struct pipe *pipe, enum open_kind end)
{
    if (end == OPEN_PIPE_TO_READ)
        pipe->readers = 0;
    else
        pipe->writers = 0;
    wake(pipe);
    if (!pipe->readers && !pipe->writers) {
        frame_release((uint32_t)pipe->ring);
        pipe->ring = 0;
    }
}

static struct pipe *pipe_new(void)
{
    for (unsigned number = 0; number < PIPES; number++)
        if (!pipes[number].ring) {
            memset(&pipes[number], 0, sizeof pipes[number]);
            pipes[number].ring = (uint8_t *)frame_allocate();
            return pipes[number].ring ? &pipes[number] : 0;
        }
    return 0;
}

/* Open one end; its descriptor, or an error. */
static int32_t open_end(struct pipe *pipe, enum open_kind kind)
{
    struct open_file *open = open_file_new(kind);
    int32_t descriptor;

    if (!open)
        return ERROR_TOO_MANY;
    descriptor = descriptor_for(open);
    if (descriptor < 0)
        open->users = 0;
    else
        open->pipe = pipe;
    return descriptor;
}

int32_t call_pipe(uint32_t address)
{
    int32_t *descriptors = (int32_t *)address;
    struct pipe *pipe;
    int32_t to_read, to_write;

    if (!can_write(address, 8))
        return ERROR_BAD_ADDRESS;
    pipe = pipe_new();
    if (!pipe)
        return ERROR_TOO_MANY;
    to_read = open_end(pipe, OPEN_PIPE_TO_READ);
    pipe->readers = to_read >= 0;
    to_write = open_end(pipe, OPEN_PIPE_TO_WRITE);
    pipe->writers = to_write >= 0;
    if (to_read < 0 || to_write < 0) {
        if (to_read >= 0)
            call_close((uint32_t)to_read);
        else if (to_write >= 0)
            call_close((uint32_t)to_write);
        else
            pipe_leave(pipe, OPEN_PIPE_TO_READ);
        return ERROR_TOO_MANY;
    }
    descriptors[0] = to_read;
    descriptors[1] = to_write;
    return 0;
}
