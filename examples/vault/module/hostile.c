// SPDX-License-Identifier: GPL-2.0
/*
 * What a rootkit does: all of physical memory, to be read and written as a file, by mapping whatever is asked for. A page that
 * cannot be had is -EFAULT. And what it does where the processor is not let: it has a device go there, by requests to a disk whose
 * descriptors name the pages.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vault_abi.h"

static DEFINE_MUTEX(lock);
static u8 bounce[PAGE_SIZE];

static ssize_t hostile_read(struct file *file, char __user *to, size_t bytes, loff_t *position)
{
	const u64 page = *position & PAGE_MASK;
	void *mapped;
	ssize_t result;

	if (bytes < PAGE_SIZE || page != *position)
		return -EINVAL;
	mapped = memremap(page, PAGE_SIZE, MEMREMAP_WB);
	if (!mapped)
		return -ENXIO;
	mutex_lock(&lock);
	result = copy_from_kernel_nofault(bounce, mapped, PAGE_SIZE);
	if (!result)
		result = copy_to_user(to, bounce, PAGE_SIZE) ? -EFAULT : PAGE_SIZE;
	mutex_unlock(&lock);
	memunmap(mapped);
	if (result > 0)
		*position += result;
	return result;
}

static ssize_t hostile_write(struct file *file, const char __user *from, size_t bytes, loff_t *position)
{
	u8 *mapped;
	u8 byte;
	size_t done;

	if (bytes > PAGE_SIZE - offset_in_page(*position))
		return -EINVAL;
	mapped = memremap(*position & PAGE_MASK, PAGE_SIZE, MEMREMAP_WB);
	if (!mapped)
		return -ENXIO;
	for (done = 0; done < bytes; ++done) {
		if (get_user(byte, from + done))
			goto fault;
		__put_kernel_nofault(mapped + offset_in_page(*position) + done, &byte, u8, fault);
	}
	memunmap(mapped);
	*position += done;
	return done;
fault:
	memunmap(mapped);
	return -EFAULT;
}

struct transfer {
	struct completion done;
	int status;
};

static void transfer_end(struct bio *bio)
{
	struct transfer *transfer = bio->bi_private;

	transfer->status = blk_status_to_errno(bio->bi_status);
	bio_put(bio);
	complete(&transfer->done);
}

static long hostile_ioctl(struct file *file, unsigned int number, unsigned long argument)
{
	struct hostile_transfer want;
	struct transfer *transfer;
	struct file *disk;
	struct bio *bio;
	long status;
	u32 i;

	if (number != HOSTILE_TRANSFER)
		return -ENOTTY;
	if (copy_from_user(&want, (void __user *)argument, sizeof(want)))
		return -EFAULT;
	want.disk[sizeof(want.disk) - 1] = 0;
	if (!want.pages || want.pages > HOSTILE_MAX_PAGES || ((want.gpa | want.disk_offset) & ~PAGE_MASK))
		return -EINVAL;
	disk = bdev_file_open_by_path(want.disk, BLK_OPEN_READ | BLK_OPEN_WRITE, NULL, NULL);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	transfer = kzalloc(sizeof(*transfer), GFP_KERNEL);
	bio = bio_alloc(file_bdev(disk), want.pages, want.to_disk ? REQ_OP_WRITE : REQ_OP_READ, GFP_KERNEL);
	if (!transfer || !bio)
		return -ENOMEM;
	init_completion(&transfer->done);
	bio->bi_iter.bi_sector = want.disk_offset >> SECTOR_SHIFT;
	bio->bi_private = transfer;
	bio->bi_end_io = transfer_end;
	/* The memory map calls them reserved; they have a struct page all the same, and a disk's driver asks no more. */
	for (i = 0; i < want.pages; ++i)
		__bio_add_page(bio, pfn_to_page((want.gpa >> PAGE_SHIFT) + i), PAGE_SIZE, 0);
	submit_bio(bio);
	/* Of a device that has stopped the queue, all that waits for it is lost. */
	if (!wait_for_completion_timeout(&transfer->done, 20 * HZ))
		return -ETIMEDOUT;
	status = transfer->status;
	kfree(transfer);
	fput(disk);
	return status;
}

static const struct file_operations hostile_operations = {
	.owner = THIS_MODULE,
	.read = hostile_read,
	.write = hostile_write,
	.unlocked_ioctl = hostile_ioctl,
	.llseek = default_llseek,
};
static struct miscdevice hostile_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hostile",
	.fops = &hostile_operations,
};
module_misc_device(hostile_device);
MODULE_DESCRIPTION("Reads and writes all memory, or tries to");
MODULE_LICENSE("GPL");
