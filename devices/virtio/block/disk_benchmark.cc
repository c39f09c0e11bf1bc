// What the ways cost by which a disk image can be read: by the device's own thread, by workers, by io_uring; from the page cache and from
// the disk behind it. Prints; asserts nothing.
//
//   disk_benchmark FILE     (made, 256 MiB; on the file system that is to be measured)
#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/owned_fd.h"
#include "devices/virtio/block/disk.h"
#include "devices/virtio/block/disk_workers.h"

namespace vmm {
namespace {

constexpr uint64_t kFileBytes = 256 << 20;
constexpr uint64_t kBlock = 4096;
constexpr unsigned kDepth = 16;

double Seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

uint64_t NextOffset() {
  static uint64_t random = 88172645463325252u;
  random ^= random << 13, random ^= random >> 7, random ^= random << 17;
  return random % (kFileBytes / kBlock) * kBlock;
}

struct Read final : DiskWorkers::Job {
  void Run() noexcept override { (void)disk->Read(offset, std::span(&vector, 1)); }
  Disk* disk = nullptr;
  uint64_t offset = 0;
  std::vector<std::byte> memory = std::vector<std::byte>(kBlock);
  iovec vector{};
  void Aim() { offset = NextOffset(), vector = {memory.data(), kBlock}; }
};

// kDepth in flight by workers; what is in the cache already is read here where `now`.
void ByWorkers(Disk& disk, DiskWorkers* workers, bool now, unsigned count) {
  std::vector<Read> reads(kDepth);
  unsigned begun = 0, done = 0;
  std::vector<Read*> free;
  for (Read& read : reads) {
    read.disk = &disk;
    free.push_back(&read);
  }
  while (done < count) {
    while (!free.empty() && begun < count) {
      Read& read = *free.back();
      read.Aim();
      ++begun;
      if (workers == nullptr) {
        read.Run();
        ++done;
      } else if (now && disk.ReadNow(read.offset, std::span(&read.vector, 1))) {
        ++done;
      } else {
        free.pop_back();
        workers->Submit(read);
      }
    }
    if (free.size() == kDepth) continue;
    pollfd ready{workers->done_fd(), POLLIN, 0};
    ::poll(&ready, 1, -1);
    while (DiskWorkers::Job* const job = workers->TakeDone()) {
      free.push_back(static_cast<Read*>(job));
      ++done;
    }
  }
}

// The least of io_uring that reads.
class Ring {
 public:
  Ring() {
    io_uring_params params{};
    fd_.Reset(static_cast<int>(::syscall(SYS_io_uring_setup, kDepth, &params)));
    if (!fd_.valid()) return;
    const auto map = [&](uint64_t bytes, uint64_t at) {
      return static_cast<std::byte*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_.get(), static_cast<off_t>(at)));
    };
    std::byte* const rings = map(params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe), IORING_OFF_SQ_RING);
    entries_ = reinterpret_cast<io_uring_sqe*>(map(params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
    tail_ = reinterpret_cast<unsigned*>(rings + params.sq_off.tail);
    array_ = reinterpret_cast<unsigned*>(rings + params.sq_off.array);
    mask_ = *reinterpret_cast<unsigned*>(rings + params.sq_off.ring_mask);
    done_head_ = reinterpret_cast<unsigned*>(rings + params.cq_off.head);
    done_tail_ = reinterpret_cast<unsigned*>(rings + params.cq_off.tail);
    done_mask_ = *reinterpret_cast<unsigned*>(rings + params.cq_off.ring_mask);
    done_ = reinterpret_cast<io_uring_cqe*>(rings + params.cq_off.cqes);
  }
  bool valid() const { return fd_.valid(); }
  void Add(int file, Read& read) {
    const unsigned tail = *tail_;
    io_uring_sqe& entry = entries_[tail & mask_];
    std::memset(&entry, 0, sizeof(entry));
    entry.opcode = IORING_OP_READV;
    entry.fd = file;
    entry.off = read.offset;
    entry.addr = reinterpret_cast<uint64_t>(&read.vector);
    entry.len = 1;
    entry.user_data = reinterpret_cast<uint64_t>(&read);
    array_[tail & mask_] = tail & mask_;
    std::atomic_ref(*tail_).store(tail + 1, std::memory_order_release);
  }
  void Enter(unsigned submit) { ::syscall(SYS_io_uring_enter, fd_.get(), submit, 1, IORING_ENTER_GETEVENTS, nullptr, 0); }
  Read* Take() {
    const unsigned head = *done_head_;
    if (head == std::atomic_ref(*done_tail_).load(std::memory_order_acquire)) return nullptr;
    auto* const read = reinterpret_cast<Read*>(done_[head & done_mask_].user_data);
    std::atomic_ref(*done_head_).store(head + 1, std::memory_order_release);
    return read;
  }

 private:
  OwnedFd fd_;
  io_uring_sqe* entries_ = nullptr;
  io_uring_cqe* done_ = nullptr;
  unsigned *tail_ = nullptr, *array_ = nullptr, *done_head_ = nullptr, *done_tail_ = nullptr;
  unsigned mask_ = 0, done_mask_ = 0;
};

void ByRing(Ring& ring, int file, unsigned count) {
  std::vector<Read> reads(kDepth);
  std::vector<Read*> free;
  for (Read& read : reads) free.push_back(&read);
  unsigned begun = 0, done = 0;
  while (done < count) {
    unsigned submit = 0;
    for (; !free.empty() && begun < count; ++begun, ++submit) {
      free.back()->Aim();
      ring.Add(file, *free.back());
      free.pop_back();
    }
    ring.Enter(submit);
    while (Read* const read = ring.Take()) {
      free.push_back(read);
      ++done;
    }
  }
}

int Main(const char* path) {
  OwnedFd fd(::open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return std::perror("open"), 1;
  const std::string content(1 << 20, 'c');
  for (uint64_t at = 0; at < kFileBytes; at += content.size()) {
    if (::write(fd.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size())) return std::perror("write"), 1;
  }
  ::fsync(fd.get());
  const int file = fd.get();
  auto disk = OpenRawDisk(std::move(fd));
  if (!disk.ok()) return 1;
  Ring ring;
  std::vector<std::pair<std::string, std::function<void(unsigned)>>> ways;
  ways.emplace_back("the device's thread", [&](unsigned count) { ByWorkers(**disk, nullptr, true, count); });
  std::vector<std::unique_ptr<DiskWorkers>> workers;
  for (const size_t threads : {1, 4, 16}) {
    workers.push_back(*DiskWorkers::Create(threads));
    DiskWorkers* const raw = workers.back().get();
    ways.emplace_back(std::to_string(threads) + " workers, all of it", [&, raw](unsigned count) { ByWorkers(**disk, raw, false, count); });
    ways.emplace_back(std::to_string(threads) + " workers, what is not in the cache", [&, raw](unsigned count) { ByWorkers(**disk, raw, true, count); });
  }
  if (ring.valid()) ways.emplace_back("io_uring", [&](unsigned count) { ByRing(ring, file, count); });
  ::posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
  std::printf("reads of 4 KiB a second, %u in flight: from the cache, from the disk\n", kDepth);
  for (const auto& [name, way] : ways) {
    double rates[2];
    for (const bool cold : {false, true}) {
      // Where the file is as large as what is read of it a part comes from the cache in the end.
      const unsigned count = cold ? 3000 : 100'000;
      if (cold) {
        ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
      } else {
        for (uint64_t at = 0; at < kFileBytes; at += content.size()) (void)!::pread(file, const_cast<char*>(content.data()), content.size(), static_cast<off_t>(at));
      }
      const double begin = Seconds();
      way(count);
      rates[cold ? 1 : 0] = count / (Seconds() - begin);
    }
    std::printf("  %-36s %9.0f %9.0f\n", name.c_str(), rates[0], rates[1]);
  }
  ::unlink(path);
  return 0;
}

}  // namespace
}  // namespace vmm

int main(int argc, char** argv) { return argc == 2 ? vmm::Main(argv[1]) : 2; }
