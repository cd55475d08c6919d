//! Handles are as good as what they point to: `&T`, `Box<T>`, `Arc<T>` implement each HAL trait that `T` implements.

/// Implements a trait of plain `&self` methods for handles by calling through.
macro_rules! forward {
    (impl $name:ident for &T, Box<T>, Arc<T> $methods:tt) => {
        $crate::forward!(@one [] $name, &T, $methods);
        $crate::forward!(@one [] $name, alloc::boxed::Box<T>, $methods);
        $crate::forward!(@one [] $name, alloc::sync::Arc<T>, $methods);
    };
    (unsafe impl $name:ident for &T, Box<T>, Arc<T> $methods:tt) => {
        $crate::forward!(@one [unsafe] $name, &T, $methods);
        $crate::forward!(@one [unsafe] $name, alloc::boxed::Box<T>, $methods);
        $crate::forward!(@one [unsafe] $name, alloc::sync::Arc<T>, $methods);
    };
    (@one [$($safety:tt)?] $name:ident, $handle:ty, { $($methods:tt)* }) => {
        // SAFETY: the handle calls through, and what it points to keeps the promises.
        $($safety)? impl<T: $name + ?Sized> $name for $handle {
            $crate::forward!(@methods $($methods)*);
        }
    };
    (@methods) => {};
    (@methods fn $f:ident(&self $(, $arg:ident: $t:ty)* $(,)?) $(-> $r:ty)?; $($rest:tt)*) => {
        #[inline]
        fn $f(&self $(, $arg: $t)*) $(-> $r)? {
            (**self).$f($($arg),*)
        }
        $crate::forward!(@methods $($rest)*);
    };
    (@methods unsafe fn $f:ident(&self $(, $arg:ident: $t:ty)* $(,)?) $(-> $r:ty)?; $($rest:tt)*) => {
        #[inline]
        unsafe fn $f(&self $(, $arg: $t)*) $(-> $r)? {
            // SAFETY: the caller's promise is passed on.
            unsafe { (**self).$f($($arg),*) }
        }
        $crate::forward!(@methods $($rest)*);
    };
}

pub(crate) use forward;
