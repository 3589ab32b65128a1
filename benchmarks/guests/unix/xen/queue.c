/* Hypercalls that wait for each other. Neighbours of one kind become one call, and several calls one multicall. */
#include "queue.h"

#include "hypervisor.h"

#define CALLS_AT_MOST 32
#define UPDATES_AT_MOST 128
#define OPERATIONS_AT_MOST 32

static struct multicall_entry calls[CALLS_AT_MOST];
static struct mmu_update updates[UPDATES_AT_MOST];
static struct mmuext_op operations[OPERATIONS_AT_MOST];
static uint32_t n_calls, n_updates, n_operations;

/* A call by a number that the compiler does not know. */
static int32_t hypercall_numbered(uint32_t number, const uint32_t arguments[4])
{
    uint32_t one = arguments[0], two = arguments[1], three = arguments[2], four = arguments[3];
    int32_t answer;

    __asm__ volatile("call *%%eax"
                     : "=a"(answer), "+b"(one), "+c"(two), "+d"(three), "+S"(four)
                     : "0"(hypercall_page + number * HYPERCALL_BYTES) : "memory");
    return answer;
}

static void queue_call(uint32_t number, uint32_t one, uint32_t two, uint32_t three, uint32_t four)
{
    struct multicall_entry *call = &calls[n_calls++];

    call->op = number;
    call->args[0] = one;
    call->args[1] = two;
    call->args[2] = three;
    call->args[3] = four;
}

/* Whether the last call is of this kind and can take one item more: its second argument counts them. Else begin a new one. */
static void queue_item(uint32_t number, void *item)
{
    if (n_calls && calls[n_calls - 1].op == number)
        calls[n_calls - 1].args[1]++;
    else
        queue_call(number, (uint32_t)item, 1, 0, DOMID_SELF);
}

static void make_room(void)
{
    if (n_calls == CALLS_AT_MOST || n_updates == UPDATES_AT_MOST || n_operations == OPERATIONS_AT_MOST)
        queue_commit();
}

void queue_update(uint32_t address, uint32_t value)
{
    struct mmu_update *update;

    make_room();
    update = &updates[n_updates++];
    update->ptr = address | MMU_NORMAL_PT_UPDATE;
    update->val = value;
    queue_item(__HYPERVISOR_mmu_update, update);
}

void queue_operation(uint32_t command, uint32_t argument)
{
    struct mmuext_op *operation;

    make_room();
    operation = &operations[n_operations++];
    operation->cmd = command;
    operation->arg1 = argument;
    queue_item(__HYPERVISOR_mmuext_op, operation);
}

void queue_mapping(uint32_t page, uint32_t value, uint32_t flush)
{
    make_room();
    queue_call(__HYPERVISOR_update_va_mapping, page, value, 0, flush);
}

/* A change that is alone in its call and the forgetting of its page are one call of another kind. */
void queue_forget(uint32_t page)
{
    struct multicall_entry *call = &calls[n_calls - 1];

    if (n_calls && call->op == __HYPERVISOR_mmu_update && call->args[1] == 1) {
        const uint32_t value = (uint32_t)updates[--n_updates].val;

        n_calls--;
        queue_mapping(page, value, UVMF_INVLPG | UVMF_LOCAL);
    } else
        queue_operation(MMUEXT_INVLPG_LOCAL, page);
}

void queue_stack(uint32_t selector, uint32_t top)
{
    make_room();
    queue_call(__HYPERVISOR_stack_switch, selector, top, 0, 0);
}

void queue_commit(void)
{
    if (n_calls == 1)
        must_succeed(hypercall_numbered(calls[0].op, calls[0].args), "a hypercall");
    else if (n_calls) {
        must_succeed(hypercall(__HYPERVISOR_multicall, (uint32_t)calls, n_calls, 0, 0), "a multicall");
        for (uint32_t number = 0; number < n_calls; number++)
            must_succeed((int32_t)calls[number].result, "a call of a multicall");
    }
    n_calls = n_updates = n_operations = 0;
}
