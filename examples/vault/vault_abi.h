/*
 * What the vault's three parts share: the secure kernel in VTL1 (C++), the module in VTL0 (C), and the program (C).
 *
 * The image of the secure kernel is loaded and runs at VAULT_BASE, physical and virtual, and begins with struct vault_header.
 * A VTL call has a service in RDI and the physical address of a struct vault_request in RSI; RAX is its answer.
 */
#ifndef VMM_EXAMPLES_VAULT_VAULT_ABI_H_
#define VMM_EXAMPLES_VAULT_VAULT_ABI_H_

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdint.h>
typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;
#endif

#define VAULT_BASE 0x8000000ul /* memory.reserved in vm.textproto; the guest's memory map has it as reserved */
#define VAULT_BYTES 0x400000ul
#define VAULT_MAGIC 0x4c4e524b544c5541ul

struct vault_header {
  u64 magic;
  u64 image_bytes; /* of the file; what follows up to VAULT_BYTES begins as zeroes */
  u64 entry, stack_top, page_map, thread_block;
  u64 gdt, gdt_limit, idt, idt_limit, task;
  u64 may_sign; /* the policy: a function that says whether a text may be signed */
  u64 protect;  /* written by the loader: 0 leaves the pages to everybody, to show what that means */
};

enum vault_service { VAULT_PUBLIC_KEY = 1, VAULT_SIGN = 2, VAULT_COUNTS = 3 };
enum vault_status { VAULT_OK = 0, VAULT_BAD_REQUEST = 1, VAULT_REFUSED = 2 };

#define VAULT_MESSAGE_BYTES 512
#define VAULT_KEY_BYTES 32
#define VAULT_SIGNATURE_BYTES 64

struct vault_request {
  u32 message_bytes;
  u32 reserved;
  u8 message[VAULT_MESSAGE_BYTES];
  u8 public_key[VAULT_KEY_BYTES];
  u8 signature[VAULT_SIGNATURE_BYTES];
  u64 reads_denied, writes_denied; /* of VTL1's pages, since the start */
};

/* /dev/vault: an ioctl is a service, its argument a struct vault_request; the answer is enum vault_status or -1. */
#define VAULT_IOCTL(service) (0x7600u | (service))

/* /dev/hostile: by this ioctl a disk's device is told to move pages between memory and its disk. ETIMEDOUT: it has not answered. */
struct hostile_transfer {
  u64 gpa;         /* of the first page */
  u64 disk_offset; /* a multiple of 4096 */
  u32 pages;       /* at most HOSTILE_MAX_PAGES */
  u32 to_disk;     /* 1: the device reads memory; 0: it writes it */
  char disk[16];   /* "/dev/vda" */
};
#define HOSTILE_MAX_PAGES 64u
#define HOSTILE_TRANSFER 0x7700u

#endif
