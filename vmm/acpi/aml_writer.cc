#include "vmm/acpi/aml_writer.h"

#include "absl/strings/str_cat.h"

namespace vmm {
namespace {

constexpr char kNameOp = 0x08;
constexpr char kBytePrefix = 0x0a;
constexpr char kWordPrefix = 0x0b;
constexpr char kDWordPrefix = 0x0c;
constexpr char kStringPrefix = 0x0d;
constexpr char kQWordPrefix = 0x0e;
constexpr char kScopeOp = 0x10;
constexpr char kExtendedOp = 0x5b;
constexpr char kDeviceOp = static_cast<char>(0x82);

Aml LittleEndian(uint64_t value, int bytes) {
  Aml out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

Aml Package(const Aml& contents) { return AmlPackageLength(contents.size()) + contents; }

}  // namespace

Aml AmlPackageLength(uint64_t bytes) {
  // One byte holds 6 bits. With more, the first holds their number and the low 4 bits.
  if (bytes + 1 < 0x40) return Aml(1, static_cast<char>(bytes + 1));
  int more = 1;
  while (more < 3 && ((bytes + 1 + static_cast<uint64_t>(more)) >> (4 + 8 * more)) != 0) ++more;
  const uint64_t total = bytes + 1 + static_cast<uint64_t>(more);
  return Aml(1, static_cast<char>((more << 6) | static_cast<int>(total & 0xf))) + LittleEndian(total >> 4, more);
}

Aml AmlInteger(uint64_t value) {
  if (value <= 1) return Aml(1, static_cast<char>(value));  // ZeroOp, OneOp
  if (value <= 0xff) return kBytePrefix + LittleEndian(value, 1);
  if (value <= 0xffff) return kWordPrefix + LittleEndian(value, 2);
  if (value <= 0xffff'ffff) return kDWordPrefix + LittleEndian(value, 4);
  return kQWordPrefix + LittleEndian(value, 8);
}

Aml AmlString(absl::string_view ascii) { return kStringPrefix + Aml(ascii.data(), ascii.size()) + '\0'; }

Aml AmlName(absl::string_view name, const Aml& value) { return absl::StrCat(Aml(1, kNameOp), name, value); }

Aml AmlDevice(absl::string_view name, const Aml& terms) {
  return Aml(1, kExtendedOp) + kDeviceOp + Package(absl::StrCat(name, terms));
}

Aml AmlRootScope(absl::string_view name, const Aml& terms) { return kScopeOp + Package(absl::StrCat("\\", name, terms)); }

}  // namespace vmm
