// SPDX-License-Identifier: GPL-2.0
/*
 * VTL0's driver: it loads the secure kernel, enables VTL1 with it, and carries requests to it.
 *
 * It is not trusted by the secure kernel, once that runs; until then everything is, as at any boot.
 */
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/uaccess.h>
#include <asm/mshyperv.h>
#include <asm/nospec-branch.h>

#include "vault_abi.h"

#define CALL_ENABLE_PARTITION_VTL 0x000d
#define CALL_ENABLE_VP_VTL 0x000f
#define CALL_GET_VP_REGISTERS 0x0050
#define ONE_ELEMENT (1ull << 32)
#define REGISTER_CODE_PAGE_OFFSETS 0x000d0002u
#define PRIVILEGE_ACCESS_VSM BIT(16)
#define VTL1 1
#define SEGMENT_CODE64 0xa09b
#define SEGMENT_DATA 0xc093
#define SEGMENT_TASK 0x008b

extern const char vault_image[], vault_image_end[];

static bool protect = true;
module_param(protect, bool, 0444);
MODULE_PARM_DESC(protect, "let the secure kernel hide its pages (to show what happens if it does not: 0)");

static DEFINE_MUTEX(lock); /* of the pages below */
static void *input, *output;
static void *vtl_call_entry;

struct enable_partition_vtl {
	u64 partition;
	u8 vtl, flags, reserved[6];
} __packed;

struct get_register {
	u64 partition;
	u32 vp;
	u8 vtl, reserved[3];
	u32 name, pad;
} __packed;

static int failed(const char *what, u64 status)
{
	pr_err("vault: %s answers 0x%llx\n", what, status & 0xffff);
	return -EIO;
}

static u64 vtl_call(u64 service, u64 argument)
{
	u64 answer, control = 0;

	asm volatile(ANNOTATE_RETPOLINE_SAFE
		     "call *%[entry]"
		     : "=a"(answer), "+c"(control), "+D"(service), "+S"(argument), ASM_CALL_CONSTRAINT
		     : [entry] "r"(vtl_call_entry)
		     : "memory", "cc");
	return answer;
}

static struct hv_x64_segment_register segment(u64 base, u32 limit, u16 selector, u16 attributes)
{
	struct hv_x64_segment_register s = { .base = base, .limit = limit, .selector = selector };

	s.attributes = attributes;
	return s;
}

static int enable_partition(void)
{
	struct enable_partition_vtl *in = input;
	u64 status;

	memset(in, 0, sizeof(*in));
	in->partition = HV_PARTITION_ID_SELF;
	in->vtl = VTL1;
	status = hv_do_hypercall(CALL_ENABLE_PARTITION_VTL, in, NULL);
	return hv_result_success(status) ? 0 : failed("EnablePartitionVtl", status);
}

static int enable_processor(const struct vault_header *header)
{
	struct hv_enable_vp_vtl *in = input;
	struct hv_init_vp_context *c = &in->vp_context;
	u64 status;

	memset(in, 0, sizeof(*in));
	in->partition_id = HV_PARTITION_ID_SELF;
	in->vp_index = HV_VP_INDEX_SELF;
	in->target_vtl.as_uint8 = VTL1;
	c->rip = header->entry;
	c->rsp = header->stack_top;
	c->rflags = 2;
	c->cs = segment(0, ~0u, 8, SEGMENT_CODE64);
	c->ds = c->es = c->gs = c->ss = segment(0, ~0u, 0x10, SEGMENT_DATA);
	c->fs = segment(header->thread_block, ~0u, 0x10, SEGMENT_DATA);
	c->tr = segment(header->task, 0x67, 0x18, SEGMENT_TASK);
	c->gdtr.base = header->gdt;
	c->gdtr.limit = header->gdt_limit;
	c->idtr.base = header->idt;
	c->idtr.limit = header->idt_limit;
	c->efer = EFER_LME | EFER_LMA | EFER_NX | EFER_SCE;
	c->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
	c->cr3 = header->page_map;
	c->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
	c->msr_cr_pat = 0x0007040600070406ull;
	status = hv_do_hypercall(CALL_ENABLE_VP_VTL, in, NULL);
	return hv_result_success(status) ? 0 : failed("EnableVpVtl", status);
}

static int find_vtl_call(void)
{
	struct get_register *in = input;
	u64 status;

	memset(in, 0, sizeof(*in));
	in->partition = HV_PARTITION_ID_SELF;
	in->vp = HV_VP_INDEX_SELF;
	in->name = REGISTER_CODE_PAGE_OFFSETS;
	status = hv_do_hypercall(CALL_GET_VP_REGISTERS | ONE_ELEMENT, in, output);
	if (!hv_result_success(status))
		return failed("GetVpRegisters", status);
	vtl_call_entry = hv_hypercall_pg + (*(u64 *)output & 0xfff);
	return 0;
}

/* The request is a whole page: the secure kernel takes nothing less. */
static long vault_ioctl(struct file *file, unsigned int number, unsigned long argument)
{
	struct vault_request *request = output;
	u64 answer;

	if (number >> 8 != VAULT_IOCTL(0) >> 8)
		return -ENOTTY;
	mutex_lock(&lock);
	if (copy_from_user(request, (void __user *)argument, sizeof(*request))) {
		mutex_unlock(&lock);
		return -EFAULT;
	}
	answer = vtl_call(number & 0xff, virt_to_phys(request));
	if (copy_to_user((void __user *)argument, request, sizeof(*request)))
		answer = -EFAULT;
	mutex_unlock(&lock);
	return answer;
}

static const struct file_operations vault_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = vault_ioctl,
};
static struct miscdevice vault_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vault",
	.fops = &vault_operations,
	.mode = 0666,
};

static int load(void)
{
	const struct vault_header *image = (const void *)vault_image;
	struct vault_header *header;
	int status;

	if (image->magic != VAULT_MAGIC || vault_image_end - vault_image > VAULT_BYTES)
		return -EINVAL;
	header = memremap(VAULT_BASE, VAULT_BYTES, MEMREMAP_WB);
	if (!header)
		return -ENOMEM;
	memset(header, 0, VAULT_BYTES);
	memcpy(header, vault_image, vault_image_end - vault_image);
	header->protect = protect;
	status = enable_partition();
	if (!status)
		status = enable_processor(image);
	memunmap(header);
	return status;
}

static int __init vault_init(void)
{
	int status;

	if (!hv_hypercall_pg || !(ms_hyperv.priv_high & PRIVILEGE_ACCESS_VSM)) {
		pr_err("vault: no Hyper-V partition with VSM\n");
		return -ENODEV;
	}
	input = (void *)get_zeroed_page(GFP_KERNEL);
	output = (void *)get_zeroed_page(GFP_KERNEL);
	if (!input || !output)
		return -ENOMEM;
	status = load();
	if (!status)
		status = find_vtl_call();
	if (status)
		return status;
	vtl_call(0, 0); /* the secure kernel's start */
	return misc_register(&vault_device);
}

/* No exit: a VTL that was enabled stays. */
module_init(vault_init);
MODULE_DESCRIPTION("Requests to a secure kernel in VTL1");
MODULE_LICENSE("GPL");
