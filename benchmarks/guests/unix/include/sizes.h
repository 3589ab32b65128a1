/* The sizes that decide what this kernel costs: of its structures, its copies and its workloads.

   Each has a source, and they are frozen, like prices: a figure measured last year must mean the same today.
   [journal]  Linux Journal, article 3814, "The Linux Process Model" (kernels 2.2 and 2.4 on i386)
   [slabinfo] the example of the manual page slabinfo(5) (Linux 2.4)
   [xv6]      mit-pdos/xv6-public, param.h, pipe.c
   [fork]     D. McCracken, "Fork timing numbers for shared page tables", linux-kernel, 10 October 2002
   [lmbench]  McVoy and Staelin, "lmbench: Portable Tools for Performance Analysis", USENIX 1996; manual page lat_ctx(8) */
#ifndef SIZES_H
#define SIZES_H

#define PAGE_BYTES 4096
#define MEMORY_BYTES (8u << 20)  /* what every guest here may count on; what lies above is not used */

/* Structures. */
#define PROCESSES 64             /* [xv6] NPROC */
#define PROCESS_BYTES 960        /* [journal] sizeof(struct task_struct): what fork copies of the kernel's own */
#define KERNEL_STACK_BYTES 8192  /* [journal] with the process's structure at its lowest address */
#define AREA_BYTES 64            /* [slabinfo] vm_area_struct */
#define AREAS_OF_PROCESS 8       /* text, data, stack, the system call page, and four to map */
#define OPEN_FILE_BYTES 96       /* [slabinfo] filp */
#define OPEN_FILES 100           /* [xv6] NFILE */
#define DESCRIPTORS_OF_PROCESS 16 /* [xv6] NOFILE */
#define FILES 50                 /* [xv6] NINODE */
#define FILE_NAME_BYTES 16       /* [xv6] DIRSIZ + 2 */
#define FILE_PAGES 16            /* of a file that was written */

/* Copies. */
#define ARGUMENTS 32             /* [xv6] MAXARG */
#define ARGUMENT_BYTES 4096      /* [xv6] exec: arguments and their pointers fill one page at most */
#define PIPE_BYTES 4096          /* Linux 2.4, PIPE_SIZE: one page ([xv6] has 512) */
#define PIPES 16

/* Time. */
#define DEFAULT_ITERATIONS "20"
#define TIMER_HZ 1000            /* Linux 2.6.0 on i386; a process runs until the next tick, as in [xv6] */

/* Workloads (user/marks.c). */
#define FORK_PAGES 100           /* [fork] the smallest of its three: 400 KB resident, none touched afterwards */
#define RING_PROCESSES 8         /* [lmbench] lat_ctx: a ring of 2, 4, 8, 16 ... processes, joined by pipes */
#define STACK_BYTES (64u << 10)
#define MAP_PAGES 16             /* [lmbench] lat_mmap begins with 64 KB on i386 */
#define READ_BYTES 4096

#endif
