/* The timer: sleeping, alarms, and that nobody keeps the processor. */
#include "program.h"

#define SPINNERS 3
#define SPIN_TICKS 2
#define WORK 10000              /* turns of a loop between two looks at the clock: far less than a tick */

static volatile uint32_t alarms;

static void on_alarm(uint32_t number, uint32_t blocked, struct registers registers)
{
    (void)number;
    (void)blocked;
    (void)registers;
    alarms++;
}

static void test_sleep(void)
{
    const int32_t start = ticks();

    check(sleep(5) == 0 && ticks() - start >= 5, "a sleep lasts as long as it was wanted");
}

/* A program that does nothing but run is interrupted, and can be ended. */
static void test_preemption(void)
{
    const int32_t child = fork();

    if (child == 0)
        for (;;)
            ;
    sleep(2);
    kill(child, SIGNAL_KILL);
    check(wait_for(child) == STATUS_OF_SIGNAL(SIGNAL_KILL), "who runs for ever is ended");
}

static void test_alarm(void)
{
    const int32_t start = ticks();

    on_signal(SIGNAL_ALARM, on_alarm);
    alarm(2);
    while (!alarms)
        ;                       /* a loop without a system call: only an interrupt leaves it */
    check(alarms == 1 && ticks() - start >= 2, "an alarm comes when it was wanted");
    alarm(3);
    check(sleep(1000) == ERROR_INTERRUPTED && alarms == 2, "an alarm ends a sleep");
    alarm(2);
    alarm(0);
    sleep(4);
    check(alarms == 2, "an alarm can be taken back");
}

/* Say that it has begun, run until so many ticks have passed before its eyes, say that it ends. */
static void spin(int32_t to)
{
    int32_t last = ticks();

    write(to, "b", 1);
    for (int seen = 0; seen < SPIN_TICKS;) {
        for (volatile int turn = 0; turn < WORK; turn++)
            ;
        if (ticks() != last) {
            last = ticks();
            seen++;
        }
    }
    write(to, "e", 1);
    exit(0);
}

/* Several that want to run always take turns: each has begun before one has seen SPIN_TICKS ticks pass. */
static void test_turns(void)
{
    char said[2 * SPINNERS];
    int32_t ends[2], done = 0;

    pipe(ends);
    for (int number = 0; number < SPINNERS; number++)
        if (fork() == 0)
            spin(ends[1]);
    while (done < 2 * SPINNERS)
        done += read(ends[0], said + done, 1);
    for (int number = 0; number < 2 * SPINNERS; number++)
        check(said[number] == (number < SPINNERS ? 'b' : 'e'), "everybody had a turn before one was done");
    for (int number = 0; number < SPINNERS; number++)
        check(wait(0) > 0, "the spinner ends");
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    test_sleep();
    test_preemption();
    test_alarm();
    test_turns();
    return 0;
}
