// SPDX-License-Identifier: GPL-2.0
/*
 * What a rootkit does: all of physical memory, to be read and written as a file, by mapping whatever is asked for. A page that
 * cannot be had is -EFAULT.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/uaccess.h>

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

static const struct file_operations hostile_operations = {
	.owner = THIS_MODULE,
	.read = hostile_read,
	.write = hostile_write,
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
