/* What is measured: the marks of lmbench (McVoy and Staelin, USENIX 1996), each in a region of its own. Sizes: sizes.h. */
#include "program.h"

static uint32_t ballast[FORK_PAGES * PAGE_BYTES / 4];
static volatile uint32_t caught;

static __attribute__((noinline)) void touch(uint32_t *memory, uint32_t pages)
{
    for (uint32_t page = 0; page < pages; page++)
        *(volatile uint32_t *)(memory + page * PAGE_BYTES / 4) = page;
}

static void null_calls(uint32_t iterations)
{
    int32_t sum = 0;

    call_by_interrupt(CALL_PARENT_NUMBER, 0, 0, 0);
    MEASURE(0, iterations, sum += call_by_interrupt(CALL_PARENT_NUMBER, 0, 0, 0));
    call_by_page(CALL_PARENT_NUMBER, 0, 0, 0);
    MEASURE(1, iterations, sum += call_by_page(CALL_PARENT_NUMBER, 0, 0, 0));
    check(sum == (int32_t)(2 * iterations), "the parent of all that is the first process");
}

/* A process of FORK_PAGES pages forks; the child ends at once, or becomes a program that does. */
static void fork_and_wait(int32_t (*way)(void), const char *const *arguments)
{
    const int32_t child = way();

    if (child == 0) {
        if (arguments)
            exec(arguments[0], arguments);
        exit(0);
    }
    check(wait(0) == child, "the child ends");
}

static void forks(uint32_t iterations)
{
    const char *const nothing[] = {"processes", "nothing", 0};

    touch(ballast, FORK_PAGES);
    fork_and_wait(fork_copying, 0);
    MEASURE(2, iterations, fork_and_wait(fork_copying, 0));
    fork_and_wait(fork, 0);
    MEASURE(3, iterations, fork_and_wait(fork, 0));
    fork_and_wait(fork, nothing);
    MEASURE(4, iterations, fork_and_wait(fork, nothing));
    check(ballast[PAGE_BYTES / 4 * (FORK_PAGES - 1)] == FORK_PAGES - 1, "the ballast is as it was");
}

/* Pass on each byte to the next pipe until the first is closed; the end closes the next. */
static void relay(int32_t from, int32_t to)
{
    char token;

    while (read(from, &token, 1) == 1)
        write(to, &token, 1);
    exit(0);
}

/* A ring of so many processes, this one included, joined by pipes: hand the token round once before, and then measured. The
   descriptors are closed as soon as they are not needed, so that the end travels round too. */
static void make_ring(uint32_t processes, int32_t *to_next, int32_t *from_last)
{
    int32_t ends[2];

    pipe(ends);
    *to_next = ends[1];
    *from_last = ends[0];
    for (uint32_t number = 1; number < processes; number++) {
        int32_t next[2];

        pipe(next);
        if (fork() == 0) {
            close(*to_next);
            close(next[0]);
            relay(*from_last, next[1]);
        }
        close(*from_last);
        close(next[1]);
        *from_last = next[0];
    }
}

static void pass_round(int32_t to_next, int32_t from_last)
{
    char token = 't';

    write(to_next, &token, 1);
    read(from_last, &token, 1);
}

static void break_ring(uint32_t processes, int32_t to_next, int32_t from_last)
{
    close(to_next);
    for (uint32_t number = 1; number < processes; number++)
        check(wait(0) > 0, "the ring ends");
    close(from_last);
}

static void rings(uint32_t iterations)
{
    int32_t to_next, from_last;

    make_ring(2, &to_next, &from_last);
    pass_round(to_next, from_last);
    MEASURE(5, iterations, pass_round(to_next, from_last));
    break_ring(2, to_next, from_last);
    make_ring(RING_PROCESSES, &to_next, &from_last);
    pass_round(to_next, from_last);
    MEASURE(6, iterations, pass_round(to_next, from_last));
    break_ring(RING_PROCESSES, to_next, from_last);
}

static void pages(uint32_t iterations)
{
    uint32_t *memory;

    if (iterations > FORK_PAGES)
        iterations = FORK_PAGES; /* one page each */
    memory = map((iterations + 1) * PAGE_BYTES);
    memory[0] = 1;
    REGION_BEGIN(7);
    touch(memory + PAGE_BYTES / 4, iterations);
    REGION_END(iterations);
    unmap(memory);
}

static void mappings(uint32_t iterations)
{
    MEASURE(8, iterations, {
        uint32_t *memory = map(MAP_PAGES * PAGE_BYTES);

        touch(memory, MAP_PAGES);
        unmap(memory);
    });
}

static void note(uint32_t number, uint32_t blocked, struct registers registers)
{
    (void)number;
    (void)blocked;
    (void)registers;
    caught++;
}

/* Behind the instruction that faulted, which has two bytes. */
static void skip(uint32_t number, uint32_t blocked, struct registers registers)
{
    volatile uint32_t *eip = &registers.eip;

    (void)number;
    (void)blocked;
    caught++;
    *eip += 2;
}

static void write_to_code(void)
{
    __asm__ volatile("movl %%eax, (%%eax)" : : "a"(write_to_code) : "memory");
}

static void signals(uint32_t iterations)
{
    const int32_t self = process_number();

    on_signal(SIGNAL_USER, note);
    on_signal(SIGNAL_SEGMENT, skip);
    kill(self, SIGNAL_USER);
    MEASURE(9, iterations, kill(self, SIGNAL_USER));
    write_to_code();
    MEASURE(10, iterations, write_to_code());
    check(caught == 2 * iterations + 2, "every signal was caught");
}

static void reads(uint32_t iterations)
{
    const int32_t file = open("marks", 0);

    read(file, ballast, READ_BYTES);
    MEASURE(11, iterations, {
        seek(file, 0);
        read(file, ballast, READ_BYTES);
    });
    check((ballast[0] & 0xFF) == 0x7F, "a program begins with the mark of ELF");
    close(file);
}

/* A byte from nowhere, and one to nowhere. */
static void nothings(uint32_t iterations)
{
    const int32_t zero = open("zero", 0), null = open("null", OPEN_WRITE);
    char byte = 'x';
    int32_t sum = 0;

    read(zero, &byte, 1);
    MEASURE(12, iterations, sum += read(zero, &byte, 1));
    write(null, &byte, 1);
    MEASURE(13, iterations, sum += write(null, &byte, 1));
    check(sum == (int32_t)(2 * iterations) && byte == 0, "a zero is read, and it goes nowhere");
    close(zero);
    close(null);
}

static void names(uint32_t iterations)
{
    struct file_status status;
    int32_t sum = 0;

    stat("letters", &status);
    MEASURE(14, iterations, sum += stat("letters", &status));
    close(open("letters", 0));
    MEASURE(15, iterations, sum += close(open("letters", 0)));
    check(sum == 0 && status.bytes == 27, "the name is known, and can be opened and closed");
}

static void handlers(uint32_t iterations)
{
    on_signal(SIGNAL_USER, note);
    MEASURE(16, iterations, on_signal(SIGNAL_USER, note));
}

int main(int count, char **arguments)
{
    const uint32_t iterations = count == 3 ? decimal(arguments[2]) : 1;

    null_calls(iterations);
    forks(iterations);
    rings(iterations);
    pages(iterations);
    mappings(iterations);
    signals(iterations);
    reads(iterations);
    nothings(iterations);
    names(iterations);
    handlers(iterations);
    return 0;
}
