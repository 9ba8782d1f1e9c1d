// A GPU for a torch that was built without CUDA: memory of its own that the host cannot touch,
// operands that must all be there, and a queue that is done later than the host believes. Operators
// are the CPU's. It has one device, the one of the index that was chosen.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <pybind11/pybind11.h>
#include <torch/library.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace {

using Clock = std::chrono::steady_clock;

// An address of the device is the host's with this bit flipped: nothing is mapped there.
constexpr uint64_t kElsewhere = uint64_t{1} << 46;
constexpr int kMostDevices = 64;
const c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);

std::atomic<int> chosen{0};
std::atomic<int64_t> held{0};
std::atomic<int64_t> most{INT64_MAX};
std::atomic<int64_t> num_waits{0};
std::atomic<double> seconds_per_operator{0};
std::atomic<Clock::rep> done_at{0};

c10::Device here() { return {c10::kCUDA, static_cast<c10::DeviceIndex>(chosen.load())}; }

c10::Stream queue() { return c10::Stream(c10::Stream::DEFAULT, here()); }

void* elsewhere(const void* address) {
  return address ? reinterpret_cast<void*>(reinterpret_cast<uint64_t>(address) ^ kElsewhere) : nullptr;
}

double pending_seconds() {
  auto left = Clock::duration(done_at.load()) - Clock::now().time_since_epoch();
  return std::max(0.0, std::chrono::duration<double>(left).count());
}

void wait() {
  ++num_waits;
  std::this_thread::sleep_for(std::chrono::duration<double>(pending_seconds()));
}

void queue_operator() {
  auto takes = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds_per_operator));
  done_at = std::max(done_at.load(), Clock::now().time_since_epoch().count()) + takes.count();
}

struct Block {
  void* host;
  int64_t size;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  held -= block->size;
  free(block->host);
  delete block;
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    if (size == 0) return {nullptr, here()};
    if (held + static_cast<int64_t>(size) > most) {
      C10_THROW_ERROR(OutOfMemoryError, "CUDA out of memory: the stub's cap is reached");
    }
    void* host = nullptr;
    TORCH_CHECK(posix_memalign(&host, 512, size) == 0, "the host has no memory for the stub");
    // What nobody has written is never a zero by chance.
    memset(host, 0x7f, size);
    held += static_cast<int64_t>(size);
    return {elsewhere(host), new Block{host, static_cast<int64_t>(size)}, &release, here()};
  }
  void copy_data(void* to, const void* from, size_t size) const override {
    memcpy(elsewhere(to), elsewhere(from), size);
  }
};
Memory memory;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return here(); }
  c10::Device getDevice() const override { return here(); }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return queue(); }
  c10::Stream getDefaultStream(c10::Device) const override { return queue(); }
  c10::Stream exchangeStream(c10::Stream) const override { return queue(); }
  c10::DeviceIndex deviceCount() const noexcept override { return kMostDevices; }
  void synchronizeDevice(const c10::DeviceIndex) const override { wait(); }
  void synchronizeStream(const c10::Stream&) const override { wait(); }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

}  // namespace

namespace at {
// Found by its name, before torch first asks.
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex current_device() const override { return here().index(); }
  DeviceIndex getCurrentDevice() const override { return here().index(); }
  DeviceIndex deviceCount() const override { return kMostDevices; }
  int getNumGPUs() const override { return kMostDevices; }
  Device getDeviceFromPtr(void*) const override { return here(); }
  Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
};
REGISTER_CUDA_HOOKS(CUDAHooks);
}  // namespace at

namespace {

// The same bytes for the CPU's operators.
at::Tensor on_host(const at::Tensor& tensor) {
  auto storage = tensor.storage();
  c10::Storage host(
      c10::Storage::use_byte_size_t(), storage.nbytes(), {elsewhere(storage.data()), c10::kCPU},
      c10::GetCPUAllocator(), /*resizable=*/true);
  at::Tensor made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(host), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  auto* kept = made.unsafeGetTensorImpl();
  kept->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return made;
}

at::Tensor view_of(const at::Tensor& tensor, at::IntArrayRef sizes, at::IntArrayRef strides, int64_t offset) {
  at::Tensor made = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(tensor.storage()), tensor.key_set(), tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  return made;
}

at::Tensor to_device(const at::Tensor& host) {
  at::Tensor made = at::detail::empty_strided_generic(
      host.sizes(), host.strides(), &memory, kKeys, host.scalar_type());
  on_host(made).copy_(host);
  return made;
}

using Type = std::optional<at::ScalarType>;
using Layout = std::optional<at::Layout>;
using Place = std::optional<at::Device>;
using Format = std::optional<at::MemoryFormat>;

at::Tensor empty(c10::SymIntArrayRef sizes, Type type, Layout, Place, std::optional<bool>, Format format) {
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(sizes), &memory, kKeys, c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(
    c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides, Type type, Layout, Place, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), &memory, kKeys,
      c10::dtype_or_default(type));
}

at::Tensor as_strided(
    const at::Tensor& self, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
    std::optional<c10::SymInt> offset) {
  return view_of(
      self, C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides),
      offset ? offset->expect_int() : self.storage_offset());
}

at::Tensor reshape_alias(const at::Tensor& self, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides) {
  return as_strided(self, sizes, strides, std::nullopt);
}

at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef asked) {
  auto sizes = at::infer_size_dv(C10_AS_INTARRAYREF_SLOW(asked), self.numel());
  auto strides = at::detail::computeStride(self.sizes(), self.strides(), sizes);
  TORCH_CHECK(strides.has_value(), "this view would need a copy; use reshape");
  return view_of(self, sizes, *strides, self.storage_offset());
}

at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool) {
  queue_operator();
  if (!self.is_cuda()) wait();
  (self.is_cuda() ? on_host(self) : self).copy_(source.is_cuda() ? on_host(source) : source);
  return self;
}

// Everything else, by the CPU's operator on the same bytes.
struct Operands {
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  // the device's, the host's
  bool is_mixed = false;

  at::Tensor enter(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) {
      is_mixed |= tensor.dim() > 0;
      return tensor;
    }
    pairs.emplace_back(tensor, on_host(tensor));
    return pairs.back().second;
  }

  at::Tensor leave(const at::Tensor& result) const {
    if (!result.defined()) return result;
    for (const auto& [device, host] : pairs) {
      if (host.is_same(result)) return device;
    }
    return to_device(result);
  }

  // Those that the operator gave another size are the device's own again.
  void settle() const {
    for (const auto& [device, host] : pairs) {
      if (host.sizes() == device.sizes()) continue;
      auto grown = to_device(host);
      auto* kept = device.unsafeGetTensorImpl();
      kept->set_storage_keep_dtype(grown.storage());
      kept->set_sizes_and_strides(grown.sizes(), grown.strides(), 0);
    }
  }
};

void compute(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  Operands operands;
  for (size_t i = stack->size() - schema.arguments().size(); i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    if (value.isTensor()) {
      value = operands.enter(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> tensors;
      for (const auto& tensor : value.toTensorVector()) tensors.push_back(operands.enter(tensor));
      value = tensors;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> tensors;
      for (std::optional<at::Tensor> tensor : value.toOptionalTensorList()) {
        tensors.push_back(tensor ? std::optional(operands.enter(*tensor)) : std::nullopt);
      }
      value = tensors;
    } else if (value.isDevice()) {
      value = c10::Device(c10::kCPU);
    }
  }
  TORCH_CHECK(
      !operands.is_mixed || operands.pairs.empty(), "Expected all tensors to be on the same device, ",
      schema.name(), " has some on ", here(), " and some on cpu");
  queue_operator();
  if (schema.name() == "aten::_local_scalar_dense") wait();
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  operands.settle();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    if (value.isTensor()) value = operands.leave(value.toTensor());
    TORCH_CHECK(!value.isTensorList(), schema.name(), " gives a list, which the stub cannot return");
  }
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("as_strided", as_strided);
  library.impl("view", view);
  library.impl("_reshape_alias", reshape_alias);
  library.impl("copy_", copy_);
}

}  // namespace

PYBIND11_MODULE(gpu_stub_device, module) {
  c10::SetAllocator(c10::kCUDA, &memory);
  module.def("choose", [](int index) { chosen = index; });
  module.def("held", [] { return held.load(); });
  module.def("cap", [](int64_t size) { most = size; });
  module.def("slow_down", [](double seconds) { seconds_per_operator = seconds; });
  module.def("pending_seconds", pending_seconds);
  module.def("num_waits", [] { return num_waits.load(); });
  module.def("wait", wait, pybind11::call_guard<pybind11::gil_scoped_release>());
}
