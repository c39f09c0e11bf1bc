/*
 * The vault's user, and its thief.
 *
 *   vault sign TEXT     asks for a signature and checks it
 *   vault scan          as root: reads all physical memory through the hostile module, and looks for the key
 *   vault patch         as root: changes the secure kernel's policy to "yes", through the hostile module
 *   vault device-scan   as root: has /dev/vda's device write the secure kernel's memory onto its disk, and looks for the key there
 *   vault device-patch  as root: has /dev/vdb's device read a changed policy from its disk into the secure kernel's memory
 *   vault counts        what the secure kernel has denied so far
 *
 * A thief knows the public key, and that libsodium keeps it behind the seed of the secret one: whoever finds the public key
 * somewhere in memory tries the 32 bytes before it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vault_abi.h"

#define PAGE 4096

static int open_device(const char *path)
{
	const int fd = open(path, O_RDWR);

	if (fd < 0) {
		perror(path);
		exit(2);
	}
	return fd;
}

static int ask(unsigned int service, struct vault_request *request)
{
	const int fd = open_device("/dev/vault");
	const int answer = ioctl(fd, VAULT_IOCTL(service), request);

	close(fd);
	if (answer < 0) {
		perror("ioctl");
		exit(2);
	}
	return answer;
}

static int sign(const char *text)
{
	static struct vault_request request;

	ask(VAULT_PUBLIC_KEY, &request);
	request.message_bytes = strnlen(text, VAULT_MESSAGE_BYTES);
	memcpy(request.message, text, request.message_bytes);
	switch (ask(VAULT_SIGN, &request)) {
	case VAULT_OK: break;
	case VAULT_REFUSED: printf("  \"%s\": the secure kernel refuses to sign it\n", text); return 1;
	default: printf("  \"%s\": a bad request\n", text); return 2;
	}
	if (crypto_sign_verify_detached(request.signature, request.message, request.message_bytes, request.public_key) != 0) {
		printf("  \"%s\": signed, but the signature is WRONG\n", text);
		return 2;
	}
	printf("  \"%s\": signed, and the signature is right (%02x%02x%02x%02x...)\n", text, request.signature[0], request.signature[1],
	       request.signature[2], request.signature[3]);
	return 0;
}

/* The 32 bytes before `at` are the secret of `public_key`. */
static int is_seed(const unsigned char *at, const unsigned char *public_key)
{
	unsigned char candidate[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];

	crypto_sign_seed_keypair(candidate, secret, at - 32);
	return memcmp(candidate, public_key, sizeof(candidate)) == 0;
}

static int scan(void)
{
	static struct vault_request request;
	static unsigned char pages[2 * PAGE]; /* the page before, for what lies over both */
	const int fd = open_device("/dev/hostile");
	unsigned long long end = 0, read_pages = 0, refused_pages = 0, found = 0;
	unsigned long long start, last;
	char line[256], what[64];
	FILE *map = fopen("/proc/iomem", "r");

	ask(VAULT_PUBLIC_KEY, &request);
	while (map != NULL && fgets(line, sizeof(line), map) != NULL) {
		if (sscanf(line, "%llx-%llx : %63[^\n]", &start, &last, what) == 3 && line[0] != ' ' &&
		    (strcmp(what, "System RAM") == 0 || strcmp(what, "Reserved") == 0) && last < 0xc0000000ull && last > end)
			end = last + 1;
	}
	if (map != NULL)
		fclose(map);
	for (unsigned long long at = 0; at + PAGE <= end; at += PAGE) {
		memcpy(pages, pages + PAGE, PAGE);
		if (lseek(fd, (off_t)at, SEEK_SET) < 0 || read(fd, pages + PAGE, PAGE) != PAGE) {
			++refused_pages;
			memset(pages + PAGE, 0, PAGE);
			continue;
		}
		++read_pages;
		for (unsigned char *from = pages + PAGE - 31;;) {
			unsigned char *const hit = memmem(from, (size_t)(pages + 2 * PAGE - from), request.public_key, 32);

			if (hit == NULL)
				break;
			if (is_seed(hit, request.public_key)) {
				/* Our own copies of a stolen key are in memory too. */
				if (found++ == 0)
					printf("  the secret key is at 0x%llx\n", at + (unsigned long long)(hit - 32 - (pages + PAGE)));
			}
			from = hit + 1;
		}
	}
	close(fd);
	printf("  %llu pages read, %llu refused: the key was %s\n", read_pages, refused_pages, found ? "FOUND" : "not found");
	return found ? 1 : 0;
}

static const unsigned char kYes[] = {0xb8, 0x01, 0x00, 0x00, 0x00, 0xc3}; /* mov $1, %eax; ret */

static int patch(void)
{
	struct vault_header header;
	const int fd = open_device("/dev/hostile");
	const int image = open_device("/vault_kernel"); /* the secure kernel's program is no secret */

	if (read(image, &header, sizeof(header)) != sizeof(header))
		return 2;
	close(image);
	if (pwrite(fd, kYes, sizeof(kYes), (off_t)header.may_sign) != sizeof(kYes)) {
		printf("  the write to the policy at 0x%llx was refused\n", (unsigned long long)header.may_sign);
		return 0;
	}
	printf("  the policy at 0x%llx was CHANGED\n", (unsigned long long)header.may_sign);
	return 1;
}

/* 0 or an error number. */
static int transfer(unsigned long long gpa, unsigned long long disk_offset, unsigned int pages, int to_disk, const char *disk)
{
	struct hostile_transfer t = {.gpa = gpa, .disk_offset = disk_offset, .pages = pages, .to_disk = (unsigned int)to_disk};
	const int fd = open_device("/dev/hostile");
	int error = 0;

	strncpy(t.disk, disk, sizeof(t.disk) - 1);
	if (ioctl(fd, HOSTILE_TRANSFER, &t) != 0)
		error = errno;
	close(fd);
	return error;
}

static int device_scan(void)
{
	static struct vault_request request;
	static unsigned char memory[VAULT_BYTES];
	unsigned long long at;
	int error = 0, fd;

	ask(VAULT_PUBLIC_KEY, &request);
	for (at = 0; at < VAULT_BYTES && error == 0; at += HOSTILE_MAX_PAGES * PAGE)
		error = transfer(VAULT_BASE + at, at, HOSTILE_MAX_PAGES, 1, "/dev/vda");
	if (error != 0) {
		printf("  the device does not carry it out (%s): it has not found the key\n", strerror(error));
		return 0;
	}
	fd = open_device("/dev/vda");
	if (pread(fd, memory, sizeof(memory), 0) != (ssize_t)sizeof(memory))
		return 2;
	close(fd);
	for (unsigned char *from = memory + 32;;) {
		unsigned char *const hit = memmem(from, (size_t)(memory + sizeof(memory) - from), request.public_key, 32);

		if (hit == NULL)
			break;
		if (is_seed(hit, request.public_key)) {
			printf("  the device has FOUND the key: it is on the disk, and at 0x%llx\n", VAULT_BASE + (unsigned long long)(hit - 32 - memory));
			return 1;
		}
		from = hit + 1;
	}
	printf("  the device has written all of it onto the disk: the key is not there\n");
	return 0;
}

static int device_patch(void)
{
	static unsigned char page[PAGE];
	struct vault_header header;
	const int image = open_device("/vault_kernel");
	const int disk = open_device("/dev/vdb");
	unsigned long long policy;
	int error;

	if (read(image, &header, sizeof(header)) != sizeof(header))
		return 2;
	policy = header.may_sign - VAULT_BASE;
	/* The page as it is, but for the policy. */
	if (pread(image, page, PAGE, (off_t)(policy & ~(PAGE - 1ull))) <= 0 || (policy & (PAGE - 1)) + sizeof(kYes) > PAGE)
		return 2;
	memcpy(page + (policy & (PAGE - 1)), kYes, sizeof(kYes));
	if (pwrite(disk, page, PAGE, 0) != PAGE || fsync(disk) != 0)
		return 2;
	close(disk);
	close(image);
	error = transfer(header.may_sign & ~(PAGE - 1ull), 0, 1, 0, "/dev/vdb");
	if (error != 0) {
		printf("  the device does not carry it out (%s): the policy is as it was\n", strerror(error));
		return 0;
	}
	/* Whether it has, the next signature shows. */
	printf("  the device says that it has written the page of the policy\n");
	return 1;
}

static int counts(void)
{
	static struct vault_request request;

	ask(VAULT_COUNTS, &request);
	printf("  the secure kernel has denied %llu reads and %llu writes\n", (unsigned long long)request.reads_denied,
	       (unsigned long long)request.writes_denied);
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	if (sodium_init() < 0)
		return 2;
	if (argc == 3 && strcmp(argv[1], "sign") == 0)
		return sign(argv[2]);
	if (argc == 2 && strcmp(argv[1], "scan") == 0)
		return scan();
	if (argc == 2 && strcmp(argv[1], "patch") == 0)
		return patch();
	if (argc == 2 && strcmp(argv[1], "device-scan") == 0)
		return device_scan();
	if (argc == 2 && strcmp(argv[1], "device-patch") == 0)
		return device_patch();
	if (argc == 2 && strcmp(argv[1], "counts") == 0)
		return counts();
	fprintf(stderr, "usage: vault sign TEXT | scan | patch | device-scan | device-patch | counts\n");
	return 2;
}
