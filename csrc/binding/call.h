// SPDX-License-Identifier: Apache-2.0
// Makes a JS function of a plain C++ function `R f(State&, Args...)`: converts arguments and result by type, and a
// NativeError into a JS Error. Raw Node-API on purpose: launches go through here, and nothing is allocated on the way.
#pragma once
#include <node_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "binding/error.h"

namespace flashinfer {

/** An address or driver handle; a JS number, since user-space addresses are below 2^53. */
using Ptr = uint64_t;

/** The memory behind a typed array, a DataView-free view: valid until the call returns. */
struct Bytes {
  uint8_t* data;
  size_t size;
  napi_value value;
};

/** Any JS value that the function converts by itself. */
struct JsValue {
  napi_value value;
};

inline void Check(napi_status status, const char* what) {
  if (status != napi_ok) throw NativeError("INTERNAL", std::string("native binding: cannot read or make ") + what);
}

inline napi_value Property(napi_env env, napi_value object, const char* name) {
  napi_value value;
  Check(napi_get_named_property(env, object, name, &value), name);
  return value;
}

template <class T>
T FromJs(napi_env env, napi_value value) {
  if constexpr (std::is_same_v<T, bool>) {
    bool out;
    Check(napi_get_value_bool(env, value, &out), "a boolean argument");
    return out;
  } else if constexpr (std::is_same_v<T, int32_t>) {
    int32_t out;
    Check(napi_get_value_int32(env, value, &out), "an int32 argument");
    return out;
  } else if constexpr (std::is_same_v<T, uint32_t>) {
    uint32_t out;
    Check(napi_get_value_uint32(env, value, &out), "a uint32 argument");
    return out;
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    int64_t out;
    Check(napi_get_value_int64(env, value, &out), "an address or size argument");
    return static_cast<uint64_t>(out);
  } else if constexpr (std::is_same_v<T, std::string>) {
    size_t length;
    Check(napi_get_value_string_utf8(env, value, nullptr, 0, &length), "a string argument");
    std::string out(length, '\0');
    Check(napi_get_value_string_utf8(env, value, out.data(), length + 1, &length), "a string argument");
    return out;
  } else if constexpr (std::is_same_v<T, Bytes>) {
    Bytes out{nullptr, 0, value};
    napi_typedarray_type type;
    size_t length;
    void* data;
    Check(napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr), "a Uint8Array argument");
    if (type != napi_uint8_array) throw NativeError("INTERNAL", "native binding: expected a Uint8Array");
    out.data = static_cast<uint8_t*>(data);
    out.size = length;
    return out;
  } else {
    static_assert(std::is_same_v<T, JsValue>, "no conversion for this argument type");
    return JsValue{value};
  }
}

template <class T>
std::vector<T> ArrayFromJs(napi_env env, napi_value value) {
  uint32_t length;
  Check(napi_get_array_length(env, value, &length), "an array argument");
  std::vector<T> out;
  out.reserve(length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value item;
    Check(napi_get_element(env, value, i, &item), "an array element");
    out.push_back(FromJs<T>(env, item));
  }
  return out;
}

inline napi_value ToJs(napi_env env, bool value) {
  napi_value out;
  Check(napi_get_boolean(env, value, &out), "a result");
  return out;
}
inline napi_value ToJs(napi_env env, double value) {
  napi_value out;
  Check(napi_create_double(env, value, &out), "a result");
  return out;
}
inline napi_value ToJs(napi_env env, uint64_t value) { return ToJs(env, static_cast<double>(value)); }
inline napi_value ToJs(napi_env env, uint32_t value) { return ToJs(env, static_cast<double>(value)); }
inline napi_value ToJs(napi_env env, int32_t value) { return ToJs(env, static_cast<double>(value)); }
inline napi_value ToJs(napi_env env, const std::string& value) {
  napi_value out;
  Check(napi_create_string_utf8(env, value.data(), value.size(), &out), "a result");
  return out;
}
inline napi_value ToJs(napi_env, JsValue value) { return value.value; }
template <class T>
napi_value ToJs(napi_env env, const std::vector<T>& values) {
  napi_value out;
  Check(napi_create_array_with_length(env, values.size(), &out), "a result");
  for (size_t i = 0; i < values.size(); i++) {
    Check(napi_set_element(env, out, static_cast<uint32_t>(i), ToJs(env, values[i])), "a result");
  }
  return out;
}

/** Copies bytes into a new Uint8Array. */
napi_value BytesToJs(napi_env env, const void* data, size_t size);

/** Builds a plain object: `ObjectBuilder(env).Set("free", n).Set(...)`. */
class ObjectBuilder {
 public:
  explicit ObjectBuilder(napi_env env) : env_(env) { Check(napi_create_object(env, &object_), "an object"); }
  template <class T>
  ObjectBuilder& Set(const char* name, const T& value) {
    if constexpr (std::is_same_v<T, napi_value>) {
      Check(napi_set_named_property(env_, object_, name, value), name);
    } else {
      Check(napi_set_named_property(env_, object_, name, ToJs(env_, value)), name);
    }
    return *this;
  }
  operator JsValue() const { return JsValue{object_}; }
  napi_value value() const { return object_; }

 private:
  napi_env env_;
  napi_value object_;
};

/** The JS Error for `error`, not thrown yet. */
napi_value ErrorToJs(napi_env env, const NativeError& error);

/** Throws `error` into JS; keeps an exception that is already pending. */
void ThrowToJs(napi_env env, const NativeError& error) noexcept;

namespace detail {

template <auto Function>
struct Caller;

template <class R, class State, class... Args, R (*Function)(State&, Args...)>
struct Caller<Function> {
  static napi_value Call(napi_env env, napi_callback_info info) noexcept {
    constexpr size_t kArgs = sizeof...(Args);
    napi_value args[kArgs + 1];
    size_t count = kArgs;
    void* state;
    try {
      Check(napi_get_cb_info(env, info, &count, args, nullptr, &state), "the call");
      return Invoke(env, *static_cast<State*>(state), args, std::index_sequence_for<Args...>{});
    } catch (const NativeError& error) {
      ThrowToJs(env, error);
    } catch (const std::exception& error) {
      ThrowToJs(env, NativeError("INTERNAL", error.what()));
    }
    return nullptr;
  }

 private:
  template <size_t... I>
  static napi_value Invoke(napi_env env, State& state, napi_value* args, std::index_sequence<I...>) {
    (void)args;
    if constexpr (std::is_void_v<R>) {
      Function(state, FromJs<Args>(env, args[I])...);
      return nullptr;
    } else {
      return ToJs(env, Function(state, FromJs<Args>(env, args[I])...));
    }
  }
};

}  // namespace detail

/** Collects the functions of one object of the addon; `state` must live as long as the environment. */
class FunctionTable {
 public:
  FunctionTable(napi_env env, void* state) : env_(env), state_(state), object_(env) {}
  template <auto Function>
  FunctionTable& Add(const char* name) {
    napi_value function;
    Check(napi_create_function(env_, name, NAPI_AUTO_LENGTH, detail::Caller<Function>::Call, state_, &function), name);
    object_.Set(name, function);
    return *this;
  }
  napi_value value() const { return object_.value(); }

 private:
  napi_env env_;
  void* state_;
  ObjectBuilder object_;
};

/** Makes state that is deleted when the environment (main thread or worker) ends; hooks run last in, first out. */
template <class State>
State* NewEnvState(napi_env env) {
  auto* state = new State(env);
  Check(napi_add_env_cleanup_hook(env, [](void* data) { delete static_cast<State*>(data); }, state), "a cleanup hook");
  return state;
}

}  // namespace flashinfer
