/* What costs nothing on the bare machine. */
#ifndef MACHINE_HERE_H
#define MACHINE_HERE_H

#define KERNEL_CS 0x08
#define KERNEL_DS 0x10
#define USER_CS (0x18 | 3)
#define USER_DS (0x20 | 3)

static inline uint32_t machine_free_from(uint32_t kernel_end)
{
    return kernel_end;
}

static inline uint32_t machine_entry(const uint32_t *entry)
{
    return *entry;
}

/* Every change has been made at once. */
static inline void machine_commit(void)
{
}

/* A table that no processor walks is memory like any other. */
static inline void machine_retire_root(uint32_t root)
{
    (void)root;
}

#endif
