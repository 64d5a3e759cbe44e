// SPDX-License-Identifier: Apache-2.0
import {
  CacheError,
  CompileError,
  CudaError,
  type ErrorCode,
  FlashInferError,
  InvalidArgumentError,
  UnsupportedError,
} from '../errors.ts';

/** What csrc/binding/error.h puts on an Error. */
interface NativeError extends Error {
  code?: string;
  driverCode?: number;
  log?: string;
}

const cudaCodes: Partial<Record<string, ErrorCode>> = {
  CUDA: 'ERR_FLASHINFER_CUDA',
  CUDA_UNAVAILABLE: 'ERR_FLASHINFER_CUDA_UNAVAILABLE',
  OOM: 'ERR_FLASHINFER_OUT_OF_MEMORY',
};

/**
 * The FlashInferError for whatever a call of the addon threw; `context` is the public function that made the call and
 * becomes the start of the message. A FlashInferError passes through unchanged.
 */
export function toFlashInferError(error: unknown, context: string): FlashInferError {
  if (error instanceof FlashInferError) return error;
  if (!(error instanceof Error)) {
    return new FlashInferError('ERR_FLASHINFER_INTERNAL', `${context}: ${String(error)}`, { cause: error });
  }
  const { code = '', driverCode, log } = error as NativeError;
  const message = `${context}: ${error.message}`;
  const cudaCode = cudaCodes[code];
  if (cudaCode) return new CudaError(cudaCode, message, { cause: error, driverCode });
  switch (code) {
    case 'COMPILE':
      return new CompileError('ERR_FLASHINFER_COMPILE_FAILED', message, { cause: error, log });
    case 'COMPILER_NOT_FOUND':
      return new CompileError('ERR_FLASHINFER_COMPILER_NOT_FOUND', message, { cause: error });
    case 'IO':
      return new CacheError('ERR_FLASHINFER_CACHE_UNWRITABLE', message, { cause: error });
    case 'UNSUPPORTED':
      return new UnsupportedError('ERR_FLASHINFER_UNSUPPORTED', message, { cause: error });
    case 'INVALID_POINTER':
      return new InvalidArgumentError('ERR_FLASHINFER_INVALID_ARGUMENT', message, { cause: error });
    default:
      return new FlashInferError('ERR_FLASHINFER_INTERNAL', message, { cause: error });
  }
}
