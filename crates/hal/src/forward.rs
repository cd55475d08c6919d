//! Handles are as good as what they point to: `&T`, `Box<T>`, `Arc<T>` implement each HAL trait that `T` implements.

/// Implements a trait of plain `&self` methods by calling through: for handles, or for a type of which a part has it.
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
    (unsafe impl [$($of:tt)*] $name:ident for $type:ty, $part:tt { $($methods:tt)* }) => {
        // SAFETY: it calls through, and its part keeps the promises.
        unsafe impl<$($of)*> $name for $type {
            $crate::forward!(@methods [$part] $($methods)*);
        }
    };
    (@one [$($safety:tt)?] $name:ident, $handle:ty, { $($methods:tt)* }) => {
        // SAFETY: the handle calls through, and what it points to keeps the promises.
        $($safety)? impl<T: $name + ?Sized> $name for $handle {
            $crate::forward!(@methods [] $($methods)*);
        }
    };
    (@to $this:ident []) => { (**$this) };
    (@to $this:ident [$part:tt]) => { $this.$part };
    (@methods $to:tt) => {};
    (@methods $to:tt fn $f:ident(&self $(, $arg:ident: $t:ty)* $(,)?) $(-> $r:ty)?; $($rest:tt)*) => {
        #[inline]
        fn $f(&self $(, $arg: $t)*) $(-> $r)? {
            $crate::forward!(@to self $to).$f($($arg),*)
        }
        $crate::forward!(@methods $to $($rest)*);
    };
    (@methods $to:tt unsafe fn $f:ident(&self $(, $arg:ident: $t:ty)* $(,)?) $(-> $r:ty)?; $($rest:tt)*) => {
        #[inline]
        unsafe fn $f(&self $(, $arg: $t)*) $(-> $r)? {
            // SAFETY: the caller's promise is passed on.
            unsafe { $crate::forward!(@to self $to).$f($($arg),*) }
        }
        $crate::forward!(@methods $to $($rest)*);
    };
}

pub(crate) use forward;
