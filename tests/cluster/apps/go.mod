module rutter.test/apps

go 1.22
