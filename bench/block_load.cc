// A load on a block device from inside a guest: reads or writes with so many in flight, past the guest's page cache.
//
//   block_load DEVICE read|write|seqread|seqwrite DEPTH BYTES SECONDS
//
// Linux's own asynchronous I/O (io_submit), O_DIRECT. Prints "ready", begins at a line on standard input and says nothing until it is
// done: "ops N ns T", so that whoever counts exits counts none of the console's. Ends at the next line.
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

namespace {

constexpr uint32_t kMaxDepth = 64;

uint64_t NowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

int Fail(const char* what) {
  std::perror(what);
  return 1;
}

void AwaitLine() {
  char character = 0;
  while (::read(0, &character, 1) == 1 && character != '\n') continue;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const std::string_view kind = argv[2];
  const bool write = kind == "write" || kind == "seqwrite";
  const bool sequential = kind == "seqread" || kind == "seqwrite";
  const auto depth = static_cast<uint32_t>(std::atoi(argv[3]));
  const auto bytes = static_cast<uint64_t>(std::atoll(argv[4]));
  const uint64_t duration_ns = static_cast<uint64_t>(std::atof(argv[5]) * 1e9);
  const int fd = ::open(argv[1], (write ? O_RDWR : O_RDONLY) | O_DIRECT);
  if (fd < 0) return Fail("open");
  uint64_t size = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0) return Fail("size");
  if (depth == 0 || depth > kMaxDepth || bytes == 0 || size < bytes) return 2;
  aio_context_t context = 0;
  if (::syscall(SYS_io_setup, kMaxDepth, &context) != 0) return Fail("io_setup");
  std::vector<iocb> blocks(depth);
  std::vector<iocb*> free;
  for (iocb& block : blocks) {
    void* memory = nullptr;
    if (::posix_memalign(&memory, 4096, bytes) != 0) return Fail("memory");
    std::memset(memory, 'x', bytes);
    block.aio_fildes = static_cast<uint32_t>(fd);
    block.aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
    block.aio_buf = reinterpret_cast<uint64_t>(memory);
    block.aio_nbytes = bytes;
    free.push_back(&block);
  }
  const uint64_t places = size / bytes;
  uint64_t random = 88172645463325252u, next = 0, done = 0;
  uint32_t in_flight = 0;
  std::printf("ready\n");
  std::fflush(stdout);
  AwaitLine();
  const uint64_t begin = NowNs();
  bool more = true;
  while (more || in_flight != 0) {
    if (more && !free.empty()) {
      for (iocb* block : free) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        block->aio_offset = static_cast<int64_t>((sequential ? next++ % places : random % places) * bytes);
      }
      const long submitted = ::syscall(SYS_io_submit, context, free.size(), free.data());
      if (submitted < 0) return Fail("io_submit");
      in_flight += static_cast<uint32_t>(submitted);
      free.erase(free.begin(), free.begin() + submitted);
    }
    io_event events[kMaxDepth];
    const long got = ::syscall(SYS_io_getevents, context, 1, kMaxDepth, events, nullptr);
    if (got < 0) return Fail("io_getevents");
    for (long i = 0; i < got; ++i) {
      if (events[i].res != static_cast<int64_t>(bytes)) {
        std::printf("a request ended with %lld\n", static_cast<long long>(events[i].res));
        return 1;
      }
      free.push_back(reinterpret_cast<iocb*>(events[i].obj));
    }
    in_flight -= static_cast<uint32_t>(got);
    done += static_cast<uint64_t>(got);
    more = NowNs() - begin < duration_ns;
  }
  const uint64_t elapsed = NowNs() - begin;
  std::printf("ops %llu ns %llu\n", static_cast<unsigned long long>(done), static_cast<unsigned long long>(elapsed));
  std::fflush(stdout);
  AwaitLine();
  return 0;
}
