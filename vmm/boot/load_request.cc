#include "vmm/boot/load_request.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "vmm/boot/boot_layout.h"

namespace vmm {

const char* ImageFormatName(ImageFormat format) {
  switch (format) {
    case ImageFormat::kElfPvh: return "PVH";
    case ImageFormat::kBzImage: return "bzImage";
    case ImageFormat::kMultiboot: return "multiboot";
  }
  return "unknown";
}

absl::StatusOr<Gpa> PlaceInitramfs(const LoadRequest& request, Gpa limit) {
  const ImageFile& file = *request.initramfs;
  const uint64_t bytes = file.bytes();
  if (bytes == 0) return file.Refuse("the file is empty");
  const std::optional<Gpa> place = request.placement.Highest(bytes, kPageBytes, limit);
  if (!place || !request.placement.Claim(*place, bytes)) {
    return file.RefuseSize(absl::StrCat("it has ", bytes, " bytes, the largest free part of guest RAM below 0x",
                                        absl::Hex(limit.raw()), " beside the kernel has ",
                                        request.placement.LargestFreeBytes(limit), " bytes"));
  }
  if (absl::Status read = file.ReadIntoGuest(0, request.memory, *place, bytes, "the archive"); !read.ok()) return read;
  return *place;
}

absl::Status WriteCommandLine(const LoadRequest& request, const ImageFile& kernel, uint64_t max_bytes) {
  const std::string& line = request.command_line;
  const uint64_t limit = std::min(max_bytes, kCommandLineBytes - 1);
  if (line.size() > limit) {
    return kernel.Refuse(absl::StrCat("the command line has ", line.size(), " bytes, the kernel takes ", limit));
  }
  if (const size_t nul = line.find('\0'); nul != std::string::npos) {
    return kernel.Refuse(absl::StrCat("the command line has a NUL at byte ", nul));
  }
  if (!request.memory.Write(kCommandLineBase, std::as_bytes(std::span(line.c_str(), line.size() + 1)))) {
    return absl::InternalError("write the command line: low memory is not RAM");
  }
  return absl::OkStatus();
}

}  // namespace vmm
