/* fork, exec, exit, wait. */
#include "program.h"

#define CROWD 20

static volatile uint32_t variable = 1;

/* A child has its own copy of everything. */
static void test_fork(int32_t (*way)(void))
{
    volatile uint32_t local = 10;
    const int32_t self = process_number();
    const int32_t child = way();

    if (child == 0) {
        if (parent_number() != self || process_number() == self || variable != 1 || local != 10)
            exit(99);
        variable = 2;
        local = 20;
        exit((int)(variable + local));
    }
    check(child > self, "fork() gives the parent the child's number");
    check(wait_for(child) == STATUS_OF_EXIT(22), "the child ends with the sum of its own variables");
    check(variable == 1 && local == 10, "what the child wrote is not seen here");
}

static void test_crowd(void)
{
    uint32_t sum = 0, status;

    for (int number = 1; number <= CROWD; number++)
        if (fork() == 0) {
            yield();
            exit(number);
        }
    for (int number = 0; number < CROWD; number++) {
        check(wait(&status) > 0, "there is a child to wait for");
        sum += status >> 8;
    }
    check(sum == CROWD * (CROWD + 1) / 2, "each child's code arrives once");
    check(wait(&status) == ERROR_NO_CHILD, "there is no child left");
}

static void test_too_many(void)
{
    int32_t made = 0, child;

    while ((child = fork()) > 0)
        made++;
    if (child == 0)
        exit(0);
    check(child == ERROR_TRY_AGAIN && made >= PROCESSES - 4, "fork() fails when every place is taken");
    while (made--)
        check(wait(0) > 0, "the many end");
}

/* The child's child lives on when the child ends, and becomes a child of the first process. */
static void test_orphan(void)
{
    int32_t ends[2];
    char answer = 0;

    check(pipe(ends) == 0, "pipe() opens two ends");
    if (fork() == 0) {
        if (fork() == 0) {
            while (parent_number() != 1)
                yield();
            write(ends[1], "x", 1);
        }
        exit(0);
    }
    check(wait(0) > 0, "the child ends");
    check(read(ends[0], &answer, 1) == 1 && answer == 'x', "the orphan has a new parent");
    close(ends[0]);
    close(ends[1]);
}

static void test_exec(const char *self, const char *way)
{
    const char *const arguments[] = {self, "arguments", way, "", "a longer one", 0};
    const char *many[ARGUMENTS + 2];
    const int32_t child = fork();

    if (child == 0) {
        exec(self, arguments);
        exit(98);
    }
    check(wait_for(child) == STATUS_OF_EXIT(42), "the new program got its arguments");
    for (int number = 0; number <= ARGUMENTS; number++)
        many[number] = "one";
    many[ARGUMENTS + 1] = 0;
    check(exec(self, many) == ERROR_TOO_LARGE, "too many arguments are refused");
    check(exec("nothing", arguments) == ERROR_NO_FILE, "a program that is not there is refused");
    check(exec("letters", arguments) == ERROR_NO_PROGRAM, "a text is no program");
    check(exec((const char *)0x100000, arguments) == ERROR_BAD_ADDRESS, "a path in the kernel is refused");
    check(exec(self, (const char *const *)0x100000) == ERROR_BAD_ADDRESS, "arguments in the kernel are refused");
}

/* What test_exec's child has become. */
static int arguments_are_right(int count, char **arguments)
{
    return count == 5 && same_text(arguments[0], "processes") && same_text(arguments[3], "") &&
           same_text(arguments[4], "a longer one") && arguments[5] == 0 && variable == 1;
}

int main(int count, char **arguments)
{
    if (same_text(arguments[1], "nothing"))
        return 0;
    if (same_text(arguments[1], "arguments"))
        return arguments_are_right(count, arguments) ? 42 : 97;
    use_call_page = same_text(arguments[1], "page");
    test_fork(fork);
    test_fork(fork_copying);
    test_crowd();
    test_too_many();
    test_orphan();
    test_exec(arguments[0], arguments[1]);
    check(call_by_interrupt(CALLS, 0, 0, 0) == ERROR_NO_CALL, "an unknown call is refused");
    check(shut_down(0) == ERROR_PERMISSION, "only the first process may shut down");
    return 0;
}
