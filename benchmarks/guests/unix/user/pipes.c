/* Pipes: every byte arrives once and in order, and both sides learn when the other is gone. */
#include "program.h"

#define TOTAL (5 * PIPE_BYTES + 123)
#define PIECE 1000

static uint8_t bytes[TOTAL + 3 * PIPE_BYTES]; /* the last read asks for more than there is */

static uint8_t pattern(uint32_t number)
{
    return (uint8_t)(number * 7 + number / 256);
}

/* More than a pipe holds: the writer sleeps when it is full, the reader when it is empty. */
static void test_stream(uint32_t piece)
{
    int32_t ends[2], child, done;
    uint32_t arrived = 0;

    check(pipe(ends) == 0, "pipe() opens two ends");
    child = fork();
    if (child == 0) {
        close(ends[0]);
        for (uint32_t number = 0; number < TOTAL; number++)
            bytes[number] = pattern(number);
        exit(write(ends[1], bytes, TOTAL) == TOTAL ? 0 : 1);
    }
    close(ends[1]);
    while ((done = read(ends[0], bytes + arrived, piece)) > 0)
        arrived += (uint32_t)done;
    check(done == 0 && arrived == TOTAL, "everything arrives, then the end");
    for (uint32_t number = 0; number < TOTAL; number++)
        check(bytes[number] == pattern(number), "the bytes arrive in order");
    close(ends[0]);
    check(wait_for(child) == 0, "the writer wrote everything");
}

/* A number goes back and forth, and each side adds one. */
static void test_two_ways(void)
{
    int32_t there[2], back[2], child;
    uint32_t number = 0;

    pipe(there);
    pipe(back);
    child = fork();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &number, 4) == 4) {
            number++;
            write(back[1], &number, 4);
        }
        exit(0);
    }
    close(there[0]);
    for (int turn = 0; turn < 50; turn++) {
        number++;
        check(write(there[1], &number, 4) == 4 && read(back[0], &number, 4) == 4, "the number comes back");
    }
    check(number == 100, "each side added one each time");
    close(there[1]);
    check(wait_for(child) == 0, "the other side sees the end");
    close(back[0]);
    close(back[1]);
}

static void test_broken(void)
{
    int32_t ends[2], child;

    pipe(ends);
    child = fork();
    if (child == 0) {
        close(ends[0]);
        for (;;)
            write(ends[1], bytes, PIECE);
    }
    close(ends[1]);
    check(read(ends[0], bytes, PIECE) == PIECE, "something arrives");
    close(ends[0]);
    check(wait_for(child) == STATUS_OF_SIGNAL(SIGNAL_PIPE), "who writes where nobody reads is ended");
}

static void test_descriptors(void)
{
    int32_t ends[2], copy;

    check(pipe((int32_t *)0x100000) == ERROR_BAD_ADDRESS, "descriptors cannot be put into the kernel");
    pipe(ends);
    check(read(ends[1], bytes, 1) == ERROR_BAD_DESCRIPTOR, "the end to write cannot be read");
    check(write(ends[0], bytes, 1) == ERROR_BAD_DESCRIPTOR, "the end to read cannot be written");
    copy = duplicate(ends[1]);
    close(ends[1]);
    check(write(copy, "q", 1) == 1 && read(ends[0], bytes, 10) == 1 && bytes[0] == 'q', "a copy is the same end");
    close(copy);
    check(read(ends[0], bytes, 10) == 0, "the last copy closes the end");
    close(ends[0]);
    check(read(ends[0], bytes, 1) == ERROR_BAD_DESCRIPTOR, "what is closed cannot be read");
    for (copy = 3; copy < DESCRIPTORS_OF_PROCESS; copy++)
        check(duplicate(1) == copy, "the lowest descriptor is taken");
    check(duplicate(1) == ERROR_TOO_MANY && pipe(ends) == ERROR_TOO_MANY, "there are so many descriptors");
    while (--copy > 2)
        close(copy);
}

int main(void)
{
    test_stream(PIECE);
    test_stream(3 * PIPE_BYTES);
    test_two_ways();
    test_broken();
    test_descriptors();
    return 0;
}
