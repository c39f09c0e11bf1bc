// The block device's process, inside and outside of its jail.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/backend/standalone_backend.h"
#include "devices/virtio/block/block_device.h"
#include "devices/virtio/block/block_policy.h"
#include "devices/virtio/block/disk.h"
#include "devices/virtio/block/disk_workers.h"

namespace vmm {
namespace {

uint64_t MonotonicNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Takes the block device's own arguments out of `arguments`, and --path where there is one.
absl::StatusOr<BlockOptions> TakeBlockArguments(std::vector<absl::string_view>& arguments, std::string* path) {
  BlockOptions options;
  std::vector<absl::string_view> others;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view name = arguments[i];
    if (name == "--read-only") {
      options.read_only = true;
      continue;
    }
    if (name == "--split-rings") {
      options.packed = false;
      continue;
    }
    absl::string_view value;
    const size_t equals = name.find('=');
    static constexpr absl::string_view kNames[] = {"--path", "--serial", "--queues", "--workers", "--bytes-per-second", "--operations-per-second"};
    const absl::string_view bare = name.substr(0, equals);
    if (std::find(std::begin(kNames), std::end(kNames), bare) == std::end(kNames)) {
      others.push_back(name);
      continue;
    }
    if (equals != absl::string_view::npos) {
      value = name.substr(equals + 1);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("argument '", name, "' needs a value"));
    }
    bool good = true;
    if (bare == "--path") {
      good = path != nullptr && !value.empty();
      if (good) *path = std::string(value);
    } else if (bare == "--serial") {
      good = value.size() <= virtio_blk::kIdBytes;
      options.serial = std::string(value);
    } else if (bare == "--queues") {
      uint32_t queues = 0;
      good = absl::SimpleAtoi(value, &queues) && queues >= 1 && queues <= 16;
      options.queues = static_cast<uint16_t>(queues);
    } else if (bare == "--workers") {
      uint32_t workers = 0;
      good = absl::SimpleAtoi(value, &workers) && workers <= DiskWorkers::kMaxWorkers;
      options.workers = static_cast<uint16_t>(workers);
    } else {
      good = absl::SimpleAtoi(value, bare == "--bytes-per-second" ? &options.bytes_per_second : &options.operations_per_second);
    }
    if (!good) return absl::InvalidArgumentError(absl::StrCat("argument '", bare, "': '", value, "' is not what it takes"));
  }
  arguments = std::move(others);
  return options;
}

absl::StatusOr<std::unique_ptr<BackendDevice>> MakeDevice(EventLoop& loop, const BlockOptions& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<Disk> disk, OpenRawDisk(OwnedFd(kBackendFirstFd)));
  // Of the limits; for the process's whole life.
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (timer < 0) return ErrnoStatus(errno, "create timer");
  std::unique_ptr<DiskWorkers> workers;
  if (options.workers != 0) {
    ASSIGN_OR_RETURN(workers, DiskWorkers::Create(options.workers));
  }
  const int done_fd = workers == nullptr ? -1 : workers->done_fd();
  const auto sleeper = [timer](uint64_t ns) {
    itimerspec time{};
    time.it_value = {.tv_sec = static_cast<time_t>(ns / 1'000'000'000), .tv_nsec = static_cast<long>(ns % 1'000'000'000)};
    ::timerfd_settime(timer, 0, &time, nullptr);
  };
  auto device = std::make_unique<BlockDevice>(std::move(disk), options, &MonotonicNs, sleeper, std::move(workers));
  if (done_fd >= 0) RETURN_IF_ERROR(loop.Watch(done_fd, EPOLLIN, [raw = device.get()](uint32_t) { raw->OnDone(); }));
  RETURN_IF_ERROR(loop.Watch(timer, EPOLLIN, [timer, raw = device.get()](uint32_t) {
    uint64_t count;
    (void)!::read(timer, &count, sizeof(count));
    raw->Resume();
  }));
  return device;
}

absl::Status Outside(std::vector<absl::string_view> arguments) {
  std::string path;
  ASSIGN_OR_RETURN(BlockOptions options, TakeBlockArguments(arguments, &path));
  ASSIGN_OR_RETURN(const BackendListen listen, TakeListenArguments(arguments));
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unknown argument '", arguments[0], "'"));
  if (path.empty()) return absl::InvalidArgumentError("needs --path FILE: a raw image or a block device");
  const OwnedFd disk(::open(path.c_str(), (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!disk.valid()) return ErrnoStatus(errno, absl::StrCat("open disk image '", path, "'"));
  struct stat about {};
  if (::fstat(disk.get(), &about) != 0) return ErrnoStatus(errno, absl::StrCat("examine '", path, "'"));
  BackendSpawnOptions spawn;
  spawn.kind = "block";
  spawn.arguments = BlockDeviceArguments(options);
  spawn.fds = {disk.get()};
  spawn.queues = options.queues;
  spawn.threads = options.workers;
  spawn.file_bytes = options.read_only ? 0 : S_ISREG(about.st_mode) ? static_cast<uint64_t>(about.st_size) : kNoLimit;
  return RunStandaloneBackend(listen, spawn);
}

}  // namespace

int RunBlockDevice(int argc, char** argv) {
  std::vector<absl::string_view> arguments(argv + 3, argv + argc);
  std::vector<absl::string_view> jail_arguments;
  if (!SplitJailArguments(arguments, jail_arguments)) {
    const absl::Status status = Outside(arguments);
    if (status.ok()) return 0;
    SayFromBackend(absl::StrCat("vmm device block: ", status.message()));
    return absl::IsInvalidArgument(status) ? 2 : 1;
  }
  const absl::StatusOr<BlockOptions> options = TakeBlockArguments(arguments, nullptr);
  if (!options.ok()) {
    SayFromBackend(options.status().message());
    return 1;
  }
  jail_arguments.insert(jail_arguments.end(), arguments.begin(), arguments.end());
  const BackendKind kind{"block", "vmm-block", kBlockPolicy, 1,
                         [&](EventLoop& loop) { return MakeDevice(loop, *options); }};
  return RunBackendProcess(kind, jail_arguments);
}

}  // namespace vmm
