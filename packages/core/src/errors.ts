// SPDX-License-Identifier: Apache-2.0
// Every error this library throws on purpose. Codes are stable: callers may switch on them.

/** Stable, machine-readable identity of an error. */
export type ErrorCode =
  // arguments
  | 'ERR_FLASHINFER_INVALID_ARGUMENT'
  | 'ERR_FLASHINFER_INVALID_RANK'
  | 'ERR_FLASHINFER_INVALID_SHAPE'
  | 'ERR_FLASHINFER_INVALID_DTYPE'
  | 'ERR_FLASHINFER_INVALID_LAYOUT'
  | 'ERR_FLASHINFER_INVALID_WINDOW'
  | 'ERR_FLASHINFER_INVALID_SCALE'
  | 'ERR_FLASHINFER_HEADS_MISMATCH'
  | 'ERR_FLASHINFER_DEVICE_MISMATCH'
  | 'ERR_FLASHINFER_NON_CONTIGUOUS'
  | 'ERR_FLASHINFER_NOT_PLANNED'
  // not available here
  | 'ERR_FLASHINFER_UNSUPPORTED'
  | 'ERR_FLASHINFER_UNSUPPORTED_HEAD_DIM'
  | 'ERR_FLASHINFER_UNSUPPORTED_ARCH'
  // lifetime
  | 'ERR_FLASHINFER_DISPOSED'
  | 'ERR_FLASHINFER_ABORTED'
  // devices and drivers
  | 'ERR_FLASHINFER_CUDA_UNAVAILABLE'
  | 'ERR_FLASHINFER_CUDA'
  | 'ERR_FLASHINFER_OUT_OF_MEMORY'
  | 'ERR_FLASHINFER_ADDON_NOT_FOUND'
  // kernels and caches
  | 'ERR_FLASHINFER_COMPILER_NOT_FOUND'
  | 'ERR_FLASHINFER_COMPILE_FAILED'
  | 'ERR_FLASHINFER_BINARY_NOT_FOUND'
  | 'ERR_FLASHINFER_BINARY_MISMATCH'
  | 'ERR_FLASHINFER_ARCH_MISMATCH'
  | 'ERR_FLASHINFER_VERSION_MISMATCH'
  | 'ERR_FLASHINFER_DOWNLOAD_FAILED'
  | 'ERR_FLASHINFER_CACHE_UNWRITABLE'
  | 'ERR_FLASHINFER_CACHE_CORRUPT'
  | 'ERR_FLASHINFER_CACHE_LOCKED'
  | 'ERR_FLASHINFER_INVALID_ENV'
  | 'ERR_FLASHINFER_INTERNAL';

/** Base of all errors thrown on purpose; `code` is stable, `message` says what was given, what is allowed and the fix. */
export class FlashInferError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A value the caller passed cannot be used. */
export class InvalidArgumentError extends FlashInferError {}

/** The request is well formed, but no kernel or device here can serve it. */
export class UnsupportedError extends FlashInferError {}

/** A tensor, stream, event, graph or wrapper was used after `dispose()`. */
export class DisposedError extends FlashInferError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_FLASHINFER_DISPOSED', message, options);
  }
}

/** An `AbortSignal` ended the operation; `cause` is the signal's reason. */
export class AbortedError extends FlashInferError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_FLASHINFER_ABORTED', message, options);
  }
}

/** The CUDA driver is missing, or one of its calls failed; `driverCode` is the CUresult. */
export class CudaError extends FlashInferError {
  readonly driverCode: number | undefined;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions & { driverCode?: number }) {
    super(code, message, options);
    this.driverCode = options?.driverCode;
  }
}

/** A kernel did not compile, or no compiler was found. */
export class CompileError extends FlashInferError {
  /** The command that repeats the compilation in a shell, when there is one. */
  readonly command: string | undefined;
  /** Where the generated source was kept. */
  readonly sourcePath: string | undefined;
  /** The compiler's whole output. */
  readonly log: string | undefined;
  constructor(
    code: ErrorCode,
    message: string,
    options?: ErrorOptions & { command?: string; sourcePath?: string; log?: string },
  ) {
    super(code, message, options);
    this.command = options?.command;
    this.sourcePath = options?.sourcePath;
    this.log = options?.log;
  }
}

/** A kernel binary or the native addon could not be found or does not fit. */
export class BinaryNotFoundError extends FlashInferError {}

/** A kernel could not be downloaded: forbidden, not there, or no mirror gave it whole. */
export class DownloadError extends FlashInferError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_FLASHINFER_DOWNLOAD_FAILED', message, options);
  }
}

/** The kernel cache could not be read, written or locked. */
export class CacheError extends FlashInferError {}
