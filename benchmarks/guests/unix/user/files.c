/* Files: those of the archive, and written ones. */
#include "program.h"

#define WRITTEN (2 * PAGE_BYTES + 500)

static uint8_t bytes[WRITTEN], again[WRITTEN];

static void test_archive(void)
{
    int32_t file = open("letters", 0);

    check(file == 3, "the lowest descriptor is given");
    check(read(file, bytes, 10) == 10 && bytes[0] == 'a' && bytes[9] == 'j', "the beginning");
    check(read(file, bytes, 100) == 17 && bytes[0] == 'k' && bytes[16] == '\n', "what is left");
    check(read(file, bytes, 100) == 0, "the end");
    check(seek(file, 25) == 0 && read(file, bytes, 1) == 1 && bytes[0] == 'z', "from another place");
    check(seek(file, 28) == ERROR_BAD_ARGUMENT, "there is nothing behind the end");
    check(write(file, bytes, 1) == ERROR_BAD_DESCRIPTOR, "it was not opened to be written");
    check(close(file) == 0 && close(file) == ERROR_BAD_DESCRIPTOR, "it can be closed once");
    check(open("letters", OPEN_WRITE) == ERROR_PERMISSION, "the archive cannot be written");
    check(open("letters", OPEN_WRITE | OPEN_CREATE) == ERROR_NO_FILE, "nor be replaced");
    check(remove("letters") == ERROR_PERMISSION, "nor be removed");
    check(open("nothing", 0) == ERROR_NO_FILE, "a file that is not there");
    check(open("a name that is too long", OPEN_WRITE | OPEN_CREATE) == ERROR_NO_FILE, "a name that is too long");
}

static void test_written(void)
{
    int32_t pages, file;

    for (uint32_t number = 0; number < WRITTEN; number++) {
        bytes[number] = (uint8_t)(number * 5 + number / 300);
        again[number] = 0;      /* so that these pages are there before any is counted */
    }
    pages = free_pages();
    file = open("new", OPEN_WRITE | OPEN_CREATE);
    check(file == 3 && write(file, bytes, 700) == 700, "the first piece");
    check(write(file, bytes + 700, WRITTEN - 700) == WRITTEN - 700, "the rest, across pages");
    close(file);
    file = open("new", OPEN_WRITE);
    check(read(file, again, WRITTEN) == WRITTEN, "all of it is there");
    for (uint32_t number = 0; number < WRITTEN; number++)
        check(again[number] == bytes[number], "as it was written");
    check(seek(file, PAGE_BYTES - 1) == 0 && write(file, "xy", 2) == 2, "two bytes in two pages");
    check(seek(file, PAGE_BYTES - 1) == 0 && read(file, again, 3) == 3, "are read back");
    check(again[0] == 'x' && again[1] == 'y' && again[2] == bytes[PAGE_BYTES + 1], "and nothing else changed");
    check(remove("new") == 0 && open("new", 0) == ERROR_NO_FILE, "its name can be removed");
    check(seek(file, 0) == 0 && read(file, again, 1) == 1 && again[0] == bytes[0], "who has it open can still read it");
    close(file);
    check(free_pages() == pages, "then its pages come back");
}

static void test_too_large(void)
{
    const int32_t file = open("large", OPEN_WRITE | OPEN_CREATE);
    int32_t done;
    uint32_t sum = 0;

    while ((done = write(file, bytes, PAGE_BYTES)) > 0)
        sum += (uint32_t)done;
    check(done == ERROR_TOO_LARGE && sum == FILE_PAGES * PAGE_BYTES, "a file has so many pages");
    check(close(open("large", OPEN_WRITE | OPEN_CREATE)) == 0, "it can be made empty");
    seek(file, 0);
    check(read(file, again, 1) == 0, "and is");
    close(file);
    remove("large");
}

/* A child and its parent share what was open, and so the place that they have reached. */
static void test_shared_offset(void)
{
    const int32_t file = open("letters", 0);
    const int32_t child = fork();

    if (child == 0)
        exit(read(file, bytes, 3));
    check(wait_for(child) == STATUS_OF_EXIT(3), "the child reads three letters");
    check(read(file, bytes, 1) == 1 && bytes[0] == 'd', "the parent goes on behind them");
    close(file);
}

static void test_devices(void)
{
    const int32_t zero = open("zero", OPEN_WRITE), null = open("null", OPEN_WRITE), read_only = open("null", 0);

    bytes[0] = bytes[WRITTEN - 1] = 1;
    check(zero == 3 && null == 4 && read_only == 5, "devices are opened as files are");
    check(read(zero, bytes, WRITTEN) == WRITTEN && !bytes[0] && !bytes[WRITTEN - 1], "there is no end of zeros");
    check(read(null, bytes, 1) == 0, "there is nothing in nothing");
    check(write(null, bytes, WRITTEN) == WRITTEN, "it takes everything");
    check(write(read_only, bytes, 1) == ERROR_BAD_DESCRIPTOR && write(zero, bytes, 1) == ERROR_BAD_DESCRIPTOR,
          "what cannot be written is refused");
    check(read(zero, (void *)0x100000, 1) == ERROR_BAD_ADDRESS, "no zeros for the kernel");
    check(seek(zero, 0) == ERROR_BAD_DESCRIPTOR, "a device has no places");
    close(zero);
    close(null);
    close(read_only);
}

static void test_status(void)
{
    struct file_status status;
    const int32_t file = open("letters", 0);

    check(stat("letters", &status) == 0, "a file's status");
    check(status.kind == STATUS_ARCHIVED && status.bytes == 27 && status.users == 1, "says what it is");
    close(file);
    check(stat("letters", &status) == 0 && status.users == 0, "and who has it open");
    check(stat("zero", &status) == 0 && status.kind == STATUS_DEVICE, "a device says that it is one");
    check(stat("nothing", &status) == ERROR_NO_FILE, "what is not there has none");
    check(stat((const char *)0x100000, &status) == ERROR_BAD_ADDRESS &&
          stat("letters", (struct file_status *)0x100000) == ERROR_BAD_ADDRESS, "the kernel is out of reach");
}

int main(void)
{
    test_archive();
    test_devices();
    test_status();
    test_written();
    test_too_large();
    test_shared_offset();
    return 0;
}
