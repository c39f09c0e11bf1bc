// TranslateVirtualAddress: VTL1 asks what an address means to VTL0.
#include "devices/hyperv/hv_msr_layout.h"
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/test.h"

extern "C" uint64_t page_directories[];

namespace guest {
namespace {

using vmm::HvTranslationCode;

constexpr uint64_t kUnmapped = 0x6fe0'0000;

HvTranslationCode CodeOf(const vmm::HvTranslateOutput& output) { return static_cast<HvTranslationCode>(output.result & 0xffff'ffff); }

TEST(AddressesOfVtl0AreTranslated) {
  EnableVtl1();
  const uint64_t page = GpaOf(AllocatePages(1));
  constexpr uint64_t kAlias = 0x7000'0000, kLargePage = 0x20'0000;
  page_directories[kAlias >> 21] = page / kLargePage * kLargePage | 0x87;
  page_directories[kUnmapped >> 21] = 0;
  OnEachCpu([] { WriteCr3(ReadCr3()); });
  InVtl1([&] {
    vmm::HvTranslateOutput output{};
    EXPECT_EQ(Translate(kAlias + page % kLargePage, vmm::kHvTranslateValidateRead, OfVtl(0), output), Success());
    EXPECT_EQ(CodeOf(output), HvTranslationCode::kSuccess);
    EXPECT_EQ(output.gpa_page, page / kPageBytes);
    EXPECT_EQ(output.result >> vmm::kHvTranslationCacheTypeShift & 0xff, 6u);  // write back
    // The same address is another thing to VTL1.
    EXPECT_EQ(Translate(kAlias + page % kLargePage, vmm::kHvTranslateValidateRead, OfVtl(1), output), Success());
    EXPECT_NE(output.gpa_page, page / kPageBytes);
    EXPECT_EQ(Translate(kUnmapped, vmm::kHvTranslateValidateRead, OfVtl(0), output), Success());
    EXPECT_EQ(CodeOf(output), HvTranslationCode::kPageNotPresent);
    EXPECT_EQ(Translate(kAlias, 0, OfVtl(0), output), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(Translate(kAlias, 1 << 10, OfVtl(0), output), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(Translate(kAlias, vmm::kHvTranslateValidateRead, OfVtl(2), output), Answer(HvStatus::kAccessDenied));
  });
  vmm::HvTranslateOutput output{};
  EXPECT_EQ(Translate(page, vmm::kHvTranslateValidateRead, OfVtl(1), output), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(Translate(page, vmm::kHvTranslateValidateRead, 0, output), Success());
  EXPECT_EQ(output.gpa_page, page / kPageBytes);
  page_directories[kUnmapped >> 21] = kUnmapped | 0x87;
}

// Pages of the hypervisor's, each level's own.
TEST(OverlaysShowInTranslations) {
  EnableProtection();
  const uint64_t page = GpaOf(AllocatePages(1));
  WriteMsr(vmm::kHvMsrVpAssistPage, page | vmm::kHvOverlayEnable);
  const auto translate = [](uint64_t at, uint64_t flags, uint8_t vtl) {
    vmm::HvTranslateOutput output{};
    InVtl1([&] { EXPECT_EQ(Translate(at, flags, OfVtl(vtl), output), Success()); });
    return output;
  };
  const uint64_t code = HypercallPage();
  EXPECT_NE(translate(code, vmm::kHvTranslateValidateRead, 0).result & vmm::kHvTranslationOverlay, 0u);
  EXPECT_EQ(CodeOf(translate(code, vmm::kHvTranslateValidateWrite, 0)), HvTranslationCode::kGpaNoWriteAccess);
  EXPECT_NE(translate(page, vmm::kHvTranslateValidateWrite, 0).result & vmm::kHvTranslationOverlay, 0u);
  EXPECT_EQ(translate(page, vmm::kHvTranslateValidateWrite, 1).result & vmm::kHvTranslationOverlay, 0u);
  EXPECT_EQ(translate(page + vmm::kHvOverlayEnable * kPageBytes, vmm::kHvTranslateValidateRead, 0).result & vmm::kHvTranslationOverlay, 0u);
  {
    // What is beneath is not asked.
    const Protected beneath(page, kNoAccess);
    EXPECT_EQ(CodeOf(translate(page, vmm::kHvTranslateValidateWrite, 0)), HvTranslationCode::kSuccess);
    const Intercepts seen = Intercepted(Reply::kLift, [&] { (void)Load<uint32_t>(page + 0x100); });
    EXPECT_EQ(seen.count, 0u);
  }
  WriteMsr(vmm::kHvMsrVpAssistPage, 0);
  EXPECT_EQ(translate(page, vmm::kHvTranslateValidateWrite, 0).result & vmm::kHvTranslationOverlay, 0u);
}

TEST(ProtectionsShowInTranslations) {
  EnableProtection();
  const uint64_t page = GpaOf(AllocatePages(1));
  const auto code = [page](uint64_t flags, uint8_t vtl) {
    vmm::HvTranslateOutput output{};
    InVtl1([&] { EXPECT_EQ(Translate(page, flags, OfVtl(vtl), output), Success()); });
    return CodeOf(output);
  };
  const Protected read_only(page, kReadExecute);
  EXPECT_EQ(code(vmm::kHvTranslateValidateRead, 0), HvTranslationCode::kSuccess);
  EXPECT_EQ(code(vmm::kHvTranslateValidateWrite, 0), HvTranslationCode::kGpaNoWriteAccess);
  EXPECT_EQ(code(vmm::kHvTranslateValidateWrite, 1), HvTranslationCode::kSuccess);
  (void)Protect(page, kNoAccess);
  EXPECT_EQ(code(vmm::kHvTranslateValidateRead, 0), HvTranslationCode::kGpaNoReadAccess);
  EXPECT_EQ(code(vmm::kHvTranslateValidateRead, 1), HvTranslationCode::kSuccess);
}

}  // namespace
}  // namespace guest
